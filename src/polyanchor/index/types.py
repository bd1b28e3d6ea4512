"""Entries, hits and rows of an index, and the interface of its stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError, InputTypeError
from polyanchor._optional import load
from polyanchor.datasets.formats._tables import encodable
from polyanchor.search.scores import padded_rows
from polyanchor.types import Neighbours


@dataclass(frozen=True)
class About:
    """Width, kind and model of an index; they never change.

    Attributes:
        dim: D, columns of its vectors.
        kind: ``"exact"``, ``"hnsw"`` or ``"ivf"``.
        model: folder of the run or saved embedder that embeds for it; empty if the index takes vectors alone.
        fingerprint: of that model's weights and preprocessing.
    """

    dim: int
    kind: str = "exact"
    model: str = ""
    fingerprint: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "dim", _check.count("dim", self.dim))


@dataclass(frozen=True)
class Entries:
    """Items to put into an index.

    Attributes:
        vectors: ``(N, D)`` float32 of length 1 (or 0).
        paths: N, or None for an item without a path; an item whose path is in the index already replaces that item.
        labels: N names of classes; None where the class is not known.

    Raises:
        TypeError: a path or a label is not a text.
        ValueError: another number of them than vectors, or one that is not UTF-8.
    """

    vectors: Tensor
    paths: Sequence[str | None]
    labels: Sequence[str | None]

    def __post_init__(self) -> None:
        for name, texts in (("paths", self.paths), ("labels", self.labels)):
            if isinstance(texts, str) or len(texts) != len(self.vectors):
                raise InputError(f"{name} must hold one text or None per vector, {len(self.vectors)}, got {len(texts)}")
            wrong = next((text for text in texts if not (text is None or isinstance(text, str))), None)
            if wrong is not None:
                raise InputTypeError(
                    f"{name} must hold texts or None, got {type(wrong).__name__} {wrong!r}; call str() on it"
                )
            encodable([text for text in texts if text is not None], what=name)

    @classmethod
    def none(cls, dim: int) -> Entries:
        """No items."""
        return cls(torch.empty(0, dim), [], [])

    def last_of_each_path(self) -> Entries:
        """Of entries with equal paths the last, in the position of the first."""
        rows = list({row if path is None else path: row for row, path in enumerate(self.paths)}.values())
        if len(rows) == len(self.paths):
            return self
        return Entries(
            self.vectors[torch.tensor(rows, dtype=torch.int64)],
            [self.paths[row] for row in rows],
            [self.labels[row] for row in rows],
        )


@dataclass(frozen=True)
class Added:
    """Result of adding items.

    Attributes:
        ids: ``(N,)`` int64, one per item, in the order of the entries.
        new: number of new items; the others replaced items of the same path.
    """

    ids: Tensor
    new: int


@dataclass(frozen=True)
class Hit:
    """A search result.

    Attributes:
        id: its permanent number in the index.
        score: cosine similarity to the query.
        label: name of its class, or None.
        path: of its file, or another name; None if it has none.
    """

    id: int
    score: float
    label: str | None
    path: str | None


class Store(Protocol):
    """Storage of an index."""

    @property
    def about(self) -> About:
        """Width, kind and model."""

    def __len__(self) -> int:
        """Number of items."""

    def add(self, entries: Entries) -> Added:
        """Add items; an item whose path is present replaces it, keeping the id, and the label unless it has its own."""

    def find(self, paths: Sequence[str]) -> list[int | None]:
        """The ids of the items with these paths, None for a path that is absent."""

    def remove(self, ids: Sequence[int]) -> int:
        """Remove all of these items or none; returns their number.

        Raises:
            ValueError: an id is absent.
        """

    def search(
        self, queries: Tensor, k: int, *, exact: bool = False, search_effort: int | None = None
    ) -> list[list[Hit]]:
        """The k best items for each query, best first, lower id first among equals.

        Args:
            queries: ``(Q, D)`` float32 of length 1.
            k: from 1 to the number of items.
            exact: compare with all items, regardless of the kind of index.
            search_effort: candidates or lists of an approximate search; None for a default by size.
        """

    def sample(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """``(n,)`` ids and ``(n, D)`` vectors of random items, n at most ``count``."""


_COLUMNS = {"id": "int64", "path": "string", "label": "string"}


@dataclass(frozen=True)
class Rows:
    """Items in ascending order of their ids, so that ties broken by row are broken by id.

    Attributes:
        vectors: ``(N + padding, D)`` float32 of length 1, the padding zero, as exact search takes them.
        table: Arrow table of N rows, ``id`` int64, ``path`` and ``label`` text or null.
        next_id: larger than any id ever used.
    """

    vectors: Tensor
    table: Any
    next_id: int

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @classmethod
    def none(cls, dim: int) -> Rows:
        """No items yet."""
        return cls(torch.zeros(0, dim), _table([], [], []), 0)

    @property
    def unit(self) -> Tensor:
        """``(N, D)``, the vectors without the padding."""
        return self.vectors[: len(self)]

    @cached_property
    def ids(self) -> Tensor:
        """``(N,)`` int64, ascending."""
        return torch.tensor(self.table["id"].to_pylist(), dtype=torch.int64)

    def verify(self, name: str, *, size: int, dim: int) -> None:
        """Require that vectors and table fit each other.

        Raises:
            ValueError: they do not; the message begins with ``name``.
        """
        columns = {field.name: str(field.type) for field in self.table.schema}
        expected = _COLUMNS, size, torch.float32, padded_rows(torch.empty(size, dim, device="meta")).shape
        fits = (columns, len(self), self.vectors.dtype, self.vectors.shape) == expected
        if not fits or not self._ids_ascend():
            raise InputError(f"{name} is damaged: its files do not fit each other; build the index again")

    def _ids_ascend(self) -> bool:
        bounds = torch.cat([torch.tensor([-1]), self.ids, torch.tensor([self.next_id])])
        return bool((bounds.diff() > 0).all())

    def with_entries(self, entries: Entries) -> tuple[Rows, Added]:
        """These rows with entries appended; one whose path is present gets the new vector and any new label."""
        fresh = entries.last_of_each_path()
        if not len(self):
            return self._first(fresh, entries)
        compute = load("pyarrow.compute", "train")
        old_rows = compute.index_in(_texts(fresh.paths), value_set=self.table["path"], skip_nulls=True).to_pylist()
        new = [row for row, old in enumerate(old_rows) if old is None]
        ids = [*self.ids.tolist(), *range(self.next_id, self.next_id + len(new))]
        paths = self.table["path"].to_pylist() + [fresh.paths[row] for row in new]
        labels = self.table["label"].to_pylist() + [fresh.labels[row] for row in new]
        vectors = torch.cat([self.unit, fresh.vectors[new]])
        for row, old in enumerate(old_rows):
            if old is not None:
                vectors[old] = fresh.vectors[row]
                labels[old] = labels[old] if fresh.labels[row] is None else fresh.labels[row]
        rows = Rows(padded_rows(vectors), _table(ids, paths, labels), self.next_id + len(new))
        return rows, Added(_ids_of(entries, ids, paths, old=len(self)), len(new))

    def _first(self, fresh: Entries, entries: Entries) -> tuple[Rows, Added]:
        """The first items of an index; no list or vector is copied, as they may fill much of the memory."""
        ids = range(self.next_id, self.next_id + len(fresh.paths))
        rows = Rows(_padded(fresh.vectors), _table(ids, fresh.paths, fresh.labels), ids.stop)
        if fresh is entries:
            return rows, Added(torch.arange(ids.start, ids.stop), len(ids))
        return rows, Added(_ids_of(entries, ids, fresh.paths, old=0), len(ids))

    def find(self, paths: Sequence[str]) -> list[int | None]:
        """The ids of the items with these paths, None for a path that is absent."""
        rows = load("pyarrow.compute", "train").index_in(_texts(paths), value_set=self.table["path"])
        ids: list[int | None] = self.table["id"].take(rows).to_pylist()
        return ids

    def without(self, ids: Sequence[int]) -> tuple[Rows, int]:
        """The rows without these items, and the number of items removed.

        Raises:
            ValueError: an id is absent.
        """
        removed = torch.tensor(sorted(set(ids)), dtype=torch.int64)
        unknown = removed[~torch.isin(removed, self.ids)]
        if len(unknown):
            raise InputError(f"the index has no item with the id {int(unknown[0])}; nothing was removed")
        kept = (~torch.isin(self.ids, removed)).nonzero()[:, 0]
        vectors, table = padded_rows(self.vectors[kept]), self.table.take(_numbers(kept.tolist()))
        return replace(self, vectors=vectors, table=table), len(removed)

    def hits(self, near: Neighbours) -> list[list[Hit]]:
        """The items in the rows of a search result; row -1 is none."""
        valid = near.ids >= 0
        items = self.table.take(_numbers(near.ids[valid].tolist()))
        columns = (items[name].to_pylist() for name in ("id", "label", "path"))
        hits = [
            Hit(number, score, label, path)
            for score, number, label, path in zip(near.scores[valid].tolist(), *columns, strict=True)
        ]
        ends = [0, *valid.sum(dim=1).cumsum(0).tolist()]
        return [hits[start:end] for start, end in pairwise(ends)]


def _ids_of(entries: Entries, ids: Sequence[int], paths: Sequence[str | None], *, old: int) -> Tensor:
    """``(N,)`` int64, the id of each entry; entries without a path are among the rows from ``old`` on."""
    by_path = dict(zip(paths, ids, strict=True))
    without = (ids[row] for row in range(old, len(ids)) if paths[row] is None)
    return torch.tensor([next(without) if path is None else by_path[path] for path in entries.paths], dtype=torch.int64)


def _padded(vectors: Tensor) -> Tensor:
    """:func:`padded_rows`, without a copy where the vectors are a view of such a matrix."""
    rows, columns = padded_rows(vectors.new_empty(vectors.shape, device="meta")).shape
    whole = vectors.untyped_storage().nbytes() == rows * columns * vectors.element_size()
    if not (whole and vectors.is_contiguous() and vectors.storage_offset() == 0):
        return padded_rows(vectors)
    padded = vectors.as_strided((rows, columns), (columns, 1))
    return padded_rows(vectors) if padded[len(vectors) :].any() else padded


def _table(ids: Sequence[int], paths: Sequence[str | None], labels: Sequence[str | None]) -> Any:
    arrow = load("pyarrow", "train")
    return arrow.table({"id": _numbers(ids), "path": _texts(paths), "label": _texts(labels)})


def _numbers(values: Sequence[int]) -> Any:
    arrow = load("pyarrow", "train")
    return arrow.array(values, arrow.int64())  # an empty list has no type of its own


def _texts(values: Sequence[str | None]) -> Any:
    arrow = load("pyarrow", "train")
    return arrow.array(values, arrow.string())

"""What goes into an index and what comes out of it."""

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
    """What an index is made for; it never changes.

    Attributes:
        dim: D, columns of its vectors.
        kind: ``"exact"``, ``"hnsw"`` or ``"ivf"``.
        model: folder of the run or the saved model that embeds for it; empty if vectors are all it takes.
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
        paths: N; an item whose path is in the index already takes that item's place. None: an item without a path.
        labels: N names of classes; None where the class is not known.

    Raises:
        TypeError: a path or a label is no text.
        ValueError: not one for each vector, or one that is not UTF-8.
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
        """One of each path: in the place of the first, the last."""
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
    """What adding items did.

    Attributes:
        ids: ``(N,)`` int64, one per item given, in that order.
        new: how many of them are new; the others took the place of items of the same path.
    """

    ids: Tensor
    new: int


@dataclass(frozen=True)
class Hit:
    """An item that a search found.

    Attributes:
        id: its number in the index, for good.
        score: cosine similarity to the query.
        label: name of its class, or None.
        path: of its file, or whatever name it was given; None if it has none.
    """

    id: int
    score: float
    label: str | None
    path: str | None


class Store(Protocol):
    """Where an index lives."""

    @property
    def about(self) -> About:
        """What it was made for."""

    def __len__(self) -> int:
        """Number of items."""

    def add(self, entries: Entries) -> Added:
        """Put items in.

        One whose path is there already takes its place and keeps its id, and its label if it comes without one.
        """

    def find(self, paths: Sequence[str]) -> list[int | None]:
        """The ids of the items with these paths, None where there is none."""

    def remove(self, ids: Sequence[int]) -> int:
        """Take items out, all or none; the number of them.

        Raises:
            ValueError: one of them is not there.
        """

    def search(
        self, queries: Tensor, k: int, *, exact: bool = False, search_effort: int | None = None
    ) -> list[list[Hit]]:
        """The k best of each query, best first, lower id first among equals.

        Args:
            queries: ``(Q, D)`` float32 of length 1.
            k: from 1 to the number of items.
            exact: compare all items, whatever kind of index this is.
            search_effort: how far an approximate search looks; None for what suits its size.
        """

    def sample(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """``(n,)`` ids and ``(n, D)`` vectors of some items, n at most ``count``."""


_COLUMNS = {"id": "int64", "path": "string", "label": "string"}


@dataclass(frozen=True)
class Rows:
    """Items in ascending order of their ids, so that what stands in order of rows stands in order of ids.

    Attributes:
        vectors: ``(N + padding, D)`` float32 of length 1, the padding zero: the form that exact search computes with.
        table: Arrow table of N rows, ``id`` int64, ``path`` and ``label`` text or null.
        next_id: larger than any id that was ever given.
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
        """Require that the parts fit each other.

        Raises:
            ValueError: they do not; begins with ``name``.
        """
        columns = {field.name: str(field.type) for field in self.table.schema}
        found = columns, len(self), self.vectors.dtype, self.vectors.shape
        whole = found == (_COLUMNS, size, torch.float32, padded_rows(torch.empty(size, dim, device="meta")).shape)
        if not whole or not self._ids_ascend():
            raise InputError(f"{name} is damaged: its files do not fit each other; build the index again")

    def _ids_ascend(self) -> bool:
        bounds = torch.cat([torch.tensor([-1]), self.ids, torch.tensor([self.next_id])])
        return bool((bounds.diff() > 0).all())

    def with_entries(self, entries: Entries) -> tuple[Rows, Added]:
        """These and new ones behind them.

        An item whose path is here already gets the new vector, and the new label if it comes with one.
        """
        fresh = entries.last_of_each_path()
        if not len(self):
            return self._first(fresh, entries)
        compute = load("pyarrow.compute", "train")
        place = compute.index_in(_texts(fresh.paths), value_set=self.table["path"], skip_nulls=True).to_pylist()
        new = [row for row, old in enumerate(place) if old is None]
        ids = [*self.ids.tolist(), *range(self.next_id, self.next_id + len(new))]
        paths = self.table["path"].to_pylist() + [fresh.paths[row] for row in new]
        labels = self.table["label"].to_pylist() + [fresh.labels[row] for row in new]
        vectors = torch.cat([self.unit, fresh.vectors[new]])
        for row, old in enumerate(place):
            if old is not None:
                vectors[old] = fresh.vectors[row]
                labels[old] = labels[old] if fresh.labels[row] is None else fresh.labels[row]
        rows = Rows(padded_rows(vectors), _table(ids, paths, labels), self.next_id + len(new))
        return rows, Added(_given(entries, ids, paths, old=len(self)), len(new))

    def _first(self, fresh: Entries, entries: Entries) -> tuple[Rows, Added]:
        """The first items of an index, which may fill a good part of the memory: no list and no vector is copied."""
        ids = range(self.next_id, self.next_id + len(fresh.paths))
        rows = Rows(_padded(fresh.vectors), _table(ids, fresh.paths, fresh.labels), ids.stop)
        given = torch.arange(ids.start, ids.stop) if fresh is entries else _given(entries, ids, fresh.paths, old=0)
        return rows, Added(given, len(ids))

    def find(self, paths: Sequence[str]) -> list[int | None]:
        """The ids of the items with these paths, None where there is none."""
        rows = load("pyarrow.compute", "train").index_in(_texts(paths), value_set=self.table["path"])
        found: list[int | None] = self.table["id"].take(rows).to_pylist()
        return found

    def without(self, ids: Sequence[int]) -> tuple[Rows, int]:
        """These without some of them, and how many those are.

        Raises:
            ValueError: one is not here.
        """
        gone = torch.tensor(sorted(set(ids)), dtype=torch.int64)
        unknown = gone[~torch.isin(gone, self.ids)]
        if len(unknown):
            raise InputError(f"the index has no item with the id {int(unknown[0])}; nothing was removed")
        kept = (~torch.isin(self.ids, gone)).nonzero()[:, 0]
        vectors, table = padded_rows(self.vectors[kept]), self.table.take(_numbers(kept.tolist()))
        return replace(self, vectors=vectors, table=table), len(gone)

    def hits(self, found: Neighbours) -> list[list[Hit]]:
        """What stands in the rows that a search found; row -1 is nothing."""
        there = found.ids >= 0
        items = self.table.take(_numbers(found.ids[there].tolist()))
        columns = (items[name].to_pylist() for name in ("id", "label", "path"))
        hits = [
            Hit(number, score, label, path)
            for score, number, label, path in zip(found.scores[there].tolist(), *columns, strict=True)
        ]
        ends = [0, *there.sum(dim=1).cumsum(0).tolist()]
        return [hits[start:end] for start, end in pairwise(ends)]


def _given(entries: Entries, ids: Sequence[int], paths: Sequence[str | None], *, old: int) -> Tensor:
    """``(N,)`` int64, the id of each entry; those without a path are new, behind the ``old`` rows of before."""
    known = dict(zip(paths, ids, strict=True))
    without = iter([ids[row] for row in range(old, len(ids)) if paths[row] is None])
    given = [next(without) if path is None else known[path] for path in entries.paths]
    return torch.tensor(given, dtype=torch.int64)


def _padded(vectors: Tensor) -> Tensor:
    """As :func:`padded_rows`, without a copy of vectors that are the beginning of such a matrix already."""
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
    return arrow.array(values, arrow.int64())  # the type said, as an empty list tells none


def _texts(values: Sequence[str | None]) -> Any:
    arrow = load("pyarrow", "train")
    return arrow.array(values, arrow.string())

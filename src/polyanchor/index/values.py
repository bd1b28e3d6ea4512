"""What goes into an index and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError, InputTypeError
from polyanchor.data.columns import encodable


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

    def search(self, queries: Tensor, k: int, *, exact: bool = False, breadth: int | None = None) -> list[list[Hit]]:
        """The k best of each query, best first, lower id first among equals.

        Args:
            queries: ``(Q, D)`` float32 of length 1.
            k: from 1 to the number of items.
            exact: compare all items, whatever kind of index this is.
            breadth: how far an approximate search looks; None for what suits its size.
        """

    def sample(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """``(n,)`` ids and ``(n, D)`` vectors of some items, n at most ``count``."""

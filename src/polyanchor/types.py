"""Immutable result types shared across the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from polyanchor._errors import InputError

if TYPE_CHECKING:  # the command line reads the choices below before it needs torch
    from torch import Tensor

Anchor = Literal["class", "data", "mixed"]
Pooling = Literal["softmax", "max", "logsumexp"]
BaselineName = Literal[
    "proxy-nca",
    "normsoftmax",
    "softtriple",
    "arcface",
    "subcenter-arcface",
    "proxy-anchor",
    "multi-similarity",
    "supcon",
    "triplet",
    "contrastive",
]
Announce = Callable[[str], None]  # receives a line about the current work


@dataclass(frozen=True)
class Neighbours:
    """The best gallery items of each query, best first.

    Attributes:
        ids: ``(Q, k)`` int64, row numbers in the gallery.
        scores: ``(Q, k)`` floating, cosine similarity, never increasing along a row; equal scores are in
            order of their ids.
    """

    ids: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Embeddings:
    """Embedded items of a data set.

    Attributes:
        vectors: ``(N, D)`` floating.
        labels: ``(N,)`` int64, the data source's own class ids.
        names: one name per row (a path, a row number of a table); empty if the rows have none.
        class_names: class id -> name, for classes that have one.
        sublabels: ``(N,)`` int64, finer classes within the classes, or None.
    """

    vectors: Tensor
    labels: Tensor
    names: tuple[str, ...] = ()
    class_names: Mapping[int, str] = field(default_factory=dict)
    sublabels: Tensor | None = None


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Attributes:
        mean: of the sample.
        low: lower end of the interval; NaN for a sample of one.
        high: upper end.
        n: size of the sample.
    """

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class RetrievalReport:
    """Retrieval measures of a set of queries.

    Attributes:
        per_query: measure name -> ``(Q,)`` float64, NaN where the measure is undefined for that query. Names:
            ``recall@k precision@k ndcg@k`` for each k asked for, ``mrr r_precision map@r``.
        means: measure name -> mean over the queries where it is defined; NaN if there is none.
        undefined: queries whose ideal DCG is 0, as no gallery item has a gain. They are left out of nDCG; see
            :meth:`undefined_of` for the other measures.
        queries: number of queries, Q.
        gallery: number of gallery items that each query was compared with.
        notes: caveats, for example that the data set was incomplete.
        labels: ``(Q,)`` int64, class of each query: queries of one class are not independent of each other.
        sub: the same search evaluated with the finer classes, where the items have them.
    """

    per_query: Mapping[str, Tensor]
    means: Mapping[str, float]
    undefined: int
    queries: int
    gallery: int
    notes: tuple[str, ...] = ()
    labels: Tensor | None = None
    sub: RetrievalReport | None = None

    def undefined_of(self, measure: str) -> int:
        """Number of queries left out of the mean of one measure.

        With a table of gains it differs: nDCG leaves out queries without any gain, the other measures queries
        without an item of their class.

        Raises:
            ValueError: no such measure.
        """
        if measure not in self.per_query:
            raise InputError(f"measure must be one of {', '.join(map(repr, self.per_query))}, got {measure!r}")
        return int(self.per_query[measure].isnan().sum())

    def __str__(self) -> str:
        """The means, a line each, and the queries and gallery behind them."""
        lines = [f"{name:13} {mean:.4f}" for name, mean in self.means.items()]
        without = f", {self.undefined} of them with nothing to find" if self.undefined else ""
        lines.append(f"{self.queries} queries{without}, each searched among {self.gallery} items")
        others = {self.undefined_of(name) for name in self.per_query if not name.startswith("ndcg@")}
        lines += [
            f"left out of all measures but nDCG, for want of an item of the same class: {count}"
            for count in sorted(others - {self.undefined})
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

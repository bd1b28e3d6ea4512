"""Recall and speed of an approximate index."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from polyanchor._errors import InputError
from polyanchor.index.index import Index
from polyanchor.index.types import Hit

_ROUNDING = 1e-5  # two ways to add up a product differ in the last bits


@dataclass(frozen=True)
class Recall:
    """An approximate search compared with the exact one.

    Attributes:
        queries: number of items used as queries.
        k: number of neighbours of each, without itself.
        recall: share of the true k neighbours that were found; an item exactly as near as the last of them counts.
        exact: median seconds of an exact query.
        approximate: median seconds of an approximate query, with the given or the default search effort.
    """

    queries: int
    k: int
    recall: float
    exact: float
    approximate: float

    @property
    def speedup(self) -> float:
        """Factor by which the approximate search is faster."""
        return self.exact / self.approximate


def measure_recall(
    index: Index, *, k: int = 10, queries: int = 200, search_effort: int | None = None, seed: int = 0
) -> Recall:
    """Search for the neighbours of random items of an index, exactly and approximately, one at a time.

    Args:
        index: with 2 items or more.
        k: neighbours, capped at the number of other items.
        queries: number of items.
        search_effort: see :meth:`Index.search`.
        seed: of the choice of items.

    Raises:
        ValueError: fewer than two items.

    Example:
        >>> import tempfile, torch
        >>> index = Index.create(tempfile.mkdtemp(), dim=4)
        >>> added = index.add(torch.randn(20, 4))
        >>> measure_recall(index, k=3).recall
        1.0
    """
    if len(index) < 2:
        raise InputError(f"{index.name} holds {len(index)} items; a check needs 2 or more")
    ids, vectors = index.sample(queries, seed=seed)
    k = min(k, len(index) - 1)
    index.search(vectors[:1], k + 1, exact=True)  # the first search reads files
    index.search(vectors[:1], k + 1, search_effort=search_effort)
    times: dict[bool, list[float]] = {True: [], False: []}
    recalls = []
    for own, vector in zip(ids.tolist(), vectors.split(1), strict=True):
        hits = {}
        for exact in (True, False):
            start = time.perf_counter()
            [all_hits] = index.search(vector, k + 1, exact=exact, search_effort=None if exact else search_effort)
            times[exact].append(time.perf_counter() - start)
            hits[exact] = [hit for hit in all_hits if hit.id != own][:k]
        recalls.append(_share(hits[True], hits[False]))
    medians = {exact: statistics.median(values) for exact, values in times.items()}
    return Recall(len(recalls), k, statistics.fmean(recalls), medians[True], medians[False])


def _share(true: list[Hit], found: list[Hit]) -> float:
    """Share of the true hits that were found; ties with the last count as true."""
    floor = true[-1].score - _ROUNDING
    return min(1.0, sum(hit.score >= floor for hit in found) / len(true))

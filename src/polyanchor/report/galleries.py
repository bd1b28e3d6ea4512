"""Queries to look at: the worst ones and typical ones, with what they found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from polyanchor.report.opening import Opened, defined


@dataclass(frozen=True)
class Hit:
    """One neighbour of a query.

    Attributes:
        row: in the gallery.
        right: whether it is of the query's class.
        similarity: cosine to the query.
    """

    row: int
    right: bool
    similarity: float


@dataclass(frozen=True)
class Shown:
    """A query and what it found.

    Attributes:
        row: of the query.
        ndcg: its value.
        first_right: rank of the first item of its class in the whole gallery, from 1.
        hits: its nearest neighbours, best first.
    """

    row: int
    ndcg: float
    first_right: int
    hits: tuple[Hit, ...]


def worst(ndcg: Tensor, mrr: Tensor, labels: Tensor, most: int) -> list[int]:
    """Rows of the queries with the lowest nDCG; of equals, of which there are many at 0, the later first hit is worse.

    At most one of each class, until all classes had one: the eight worst queries are often eight of one class.

    Args:
        ndcg: ``(Q,)`` floating, NaN where undefined.
        mrr: ``(Q,)``, one through the rank of the first hit.
        labels: ``(Q,)`` int64.
        most: at most so many.

    Example:
        >>> ndcg, mrr = torch.tensor([0.0, 0.0, 0.5, 0.9]), torch.tensor([0.1, 0.05, 0.5, 1.0])
        >>> worst(ndcg, mrr, torch.tensor([4, 4, 4, 7]), 3)
        [1, 3, 0]
    """
    rows = defined(ndcg).tolist()
    order = sorted(rows, key=lambda row: (float(ndcg[row]), float(mrr[row]), row))
    return _one_of_each(order, labels, most)


def typical(ndcg: Tensor, labels: Tensor, most: int) -> list[int]:
    """Rows of the queries whose nDCG lies nearest to the median, at most one of each class until all had one.

    Of equally near ones an even choice over the data is taken, not the first.

    Args:
        ndcg: ``(Q,)`` floating, NaN where undefined.
        labels: ``(Q,)`` int64.
        most: at most so many.
    """
    rows = defined(ndcg)
    if not len(rows):
        return []
    distance = (ndcg[rows] - ndcg[rows].median()).abs()
    mixed = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    order = rows[mixed[distance[mixed].argsort(stable=True)]]
    return _one_of_each(order.tolist(), labels, most)


def _one_of_each(order: Iterable[int], labels: Tensor, most: int) -> list[int]:
    """In rounds: the first of each class, then the second of each, ..., in the order that came."""
    rounds: dict[int, int] = {}
    placed = []
    for place, row in enumerate(order):
        label = int(labels[row])
        rounds[label] = rounds.get(label, -1) + 1
        placed.append((rounds[label], place, row))
    return [row for _, _, row in sorted(placed)[:most]]


def with_hits(opened: Opened, rows: Iterable[int]) -> list[Shown]:
    """The queries of some rows with their neighbours, right or wrong."""
    labels, found = opened.queries.embeddings.labels, opened.searched.embeddings.labels
    shown = []
    for row in rows:
        ids, scores = opened.neighbours.ids[row].tolist(), opened.neighbours.scores[row].tolist()
        hits = tuple(
            Hit(near, bool(found[near] == labels[row]), score) for near, score in zip(ids, scores, strict=True)
        )
        first = round(1 / float(opened.report.per_query["mrr"][row]))
        shown.append(Shown(row, float(opened.ndcg[row]), first, hits))
    return shown

"""Scores of the whole run, of classes and of single queries; which classes are confused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyanchor.report.data import ReportData, defined
from polyanchor.stats.bootstrap import DRAWS, RESAMPLES, bootstrap_interval, paired_bootstrap
from polyanchor.types import Interval, RetrievalReport

NAMES = {"recall": "recall", "precision": "precision", "ndcg": "nDCG", "mrr": "MRR", "r_precision": "R-precision"}


@dataclass(frozen=True)
class Measure:
    """A mean over queries.

    Attributes:
        name: as the report calls it.
        label: as people write it.
        over_queries: mean and 95 % percentile interval from resampled queries; None if it is undefined for all.
        over_classes: the same from resampled classes, all queries of a class together.
        undefined: queries left out.
    """

    name: str
    label: str
    over_queries: Interval | None
    over_classes: Interval | None
    undefined: int


def resamples_for(queries: int) -> int:
    """How often to resample: ten thousand times, less often where queries are very many.

    Example:
        >>> resamples_for(4_000), resamples_for(60_000)
        (10000, 3333)
    """
    return max(1_000, min(RESAMPLES, DRAWS // max(queries, 1)))


def measures(report: RetrievalReport, *, seed: int = 0) -> list[Measure]:
    """Every measure of a report, which has the labels of its queries, with both intervals.

    Example:
        >>> values = torch.tensor([1.0, 0.0, 1.0, float("nan")], dtype=torch.float64)
        >>> (mrr,) = measures(RetrievalReport({"mrr": values}, {}, 1, 4, 3, labels=torch.tensor([0, 0, 1, 2])))
        >>> round(mrr.over_queries.mean, 4), mrr.over_classes.n, mrr.undefined
        (0.6667, 2, 1)
    """
    names = [name for name, values in report.per_query.items() if not bool(values.isnan().all())]
    by_query, by_class = _intervals(report, names, None, seed), _intervals(report, names, report.labels, seed)
    return [
        Measure(name, label(name), by_query.get(name), by_class.get(name), report.undefined_of(name))
        for name in report.per_query
    ]


def _intervals(report: RetrievalReport, names: list[str], groups: Tensor | None, seed: int) -> dict[str, Interval]:
    if not names:
        return {}
    values = torch.stack([report.per_query[name] for name in names], dim=1).cpu()
    resamples = resamples_for(len(values))
    zeros = torch.zeros_like(values)  # a mean is its difference to 0: all columns from the same draws
    pairs = paired_bootstrap(values, zeros, None if groups is None else groups.cpu(), resamples=resamples, seed=seed)
    return {name: pair.difference for name, pair in zip(names, pairs, strict=True)}


def label(name: str) -> str:
    """A measure's name as people write it.

    Example:
        >>> label("ndcg@8"), label("map@r"), label("mrr")
        ('nDCG@8', 'MAP@R', 'MRR')
    """
    if name == "map@r":
        return "MAP@R"
    kind, at, k = name.partition("@")
    return NAMES.get(kind, kind) + at + k


@dataclass(frozen=True)
class ClassScore:
    """The queries of one class.

    Attributes:
        class_id: the data source's own.
        queries: those with a defined value.
        undefined: those without.
        means: measure -> mean over the queries; NaN if it is defined for none.
    """

    class_id: int
    queries: int
    undefined: int
    means: Mapping[str, float]


def class_scores(per_query: Mapping[str, Tensor], labels: Tensor, names: Sequence[str]) -> list[ClassScore]:
    """Means over the queries of each class, in ascending order of the class ids.

    Args:
        per_query: measure -> ``(Q,)`` floating, NaN where undefined.
        labels: ``(Q,)`` int64.
        names: of the measures; the first says how many queries are defined.

    Example:
        >>> values = {"mrr": torch.tensor([1.0, 0.5, 0.25, float("nan")])}
        >>> scores = class_scores(values, torch.tensor([7, 7, 3, 3]), ["mrr"])
        >>> [(score.class_id, score.means["mrr"]) for score in scores]
        [(3, 0.25), (7, 0.75)]
    """
    class_ids, which = labels.unique(return_inverse=True)
    totals, means = which.bincount(minlength=len(class_ids)), {}
    kept = torch.zeros_like(totals)
    for name in reversed(names):
        values, rows = per_query[name].double(), defined(per_query[name])
        kept = which[rows].bincount(minlength=len(class_ids))
        sums = torch.zeros(len(class_ids), dtype=torch.float64).index_add_(0, which[rows], values[rows])
        means[name] = sums / kept
    return [
        ClassScore(
            int(class_id), int(kept[at]), int(totals[at] - kept[at]), {name: float(means[name][at]) for name in names}
        )
        for at, class_id in enumerate(class_ids)
    ]


def extremes(scores: Sequence[ClassScore], name: str, most: int) -> tuple[list[ClassScore], list[ClassScore]]:
    """The ``most`` worst and best classes by a measure, worst and best first; no class is in both."""
    ranked = sorted((score for score in scores if score.queries), key=lambda score: (score.means[name], score.class_id))
    most = min(most, len(ranked) // 2) if len(ranked) > 1 else len(ranked)
    return ranked[:most], ranked[most:][::-1][:most]


def interval_of(values: Tensor, labels: Tensor, class_id: int) -> Interval:
    """Mean over the queries of a class, at least one of them defined, with the interval from resampling them."""
    return bootstrap_interval(values[labels == class_id])


@dataclass(frozen=True)
class Confusion:
    r"""The share of the queries of class a whose nearest neighbour is of class b.

    .. math:: C_{ab} = \frac{1}{|Q_a|} \sum_{q \in Q_a} [\,\text{class of } q\text{'s nearest neighbour} = b\,]

    The rows sum to 1, and the mean of :math:`C_{aa}` over all queries is recall@1.

    Attributes:
        queries: class id -> number of its queries that have an item of their class to find.
        counts: a -> b -> number of the queries of a whose nearest neighbour is of b; pairs that occur.
    """

    queries: dict[int, int]
    counts: dict[int, dict[int, int]]

    def share(self, asked: int, found: int) -> float:
        """The share, 0 for a pair that does not occur."""
        return self.counts[asked].get(found, 0) / self.queries[asked]

    def of(self, asked: int) -> list[tuple[int, float]]:
        """The other classes that the queries of a class find, with their shares, strongest first."""
        wrong = [(b, self.share(asked, b)) for b in self.counts[asked] if b != asked]
        return sorted(wrong, key=lambda pair: (-pair[1], pair[0]))


def confusion(labels: Tensor, nearest: Tensor, known: Tensor) -> Confusion:
    """Count which class the nearest neighbour of each query is of.

    Args:
        labels: ``(Q,)`` int64, classes of the queries.
        nearest: ``(Q,)`` int64, classes of their nearest neighbours.
        known: ``(Q,)`` bool, whether a query has an item of its class to find; others are left out.

    Example:
        >>> counted = confusion(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), torch.tensor([True, True, True]))
        >>> counted.share(0, 1), counted.of(0), counted.share(1, 0)
        (0.5, [(1, 0.5)], 0.0)
    """
    pairs, counts = torch.stack([labels, nearest], dim=1)[known].unique(dim=0, return_counts=True)
    asked, sizes = labels[known].unique(return_counts=True)
    table: dict[int, dict[int, int]] = {class_id: {} for class_id in asked.tolist()}
    for (a, b), count in zip(pairs.tolist(), counts.tolist(), strict=True):
        table[a][b] = count
    return Confusion(dict(zip(asked.tolist(), sizes.tolist(), strict=True)), table)


def strongest(confused: Confusion, most: int | None = None) -> list[tuple[int, int, int, float]]:
    """The pairs of different classes with the largest shares: ``(a, b, queries, share)``.

    Of equal shares the one with more queries comes first.
    """
    counts = [(a, b, n) for a, of_class in confused.counts.items() for b, n in of_class.items() if a != b]
    wrong = [(a, b, n, confused.share(a, b)) for a, b, n in counts]
    return sorted(wrong, key=lambda pair: (-pair[3], -pair[2], pair[:2]))[:most]


def shown_classes(confused: Confusion, chosen: Sequence[int], most: int) -> list[int]:
    """Classes of a table of at most ``most``: all, or the chosen ones and then those of the strongest pairs.

    The chosen ones are shown even if they are more; those without queries are left out.
    """
    everything = sorted(confused.queries)
    if len(everything) <= most:
        return everything
    listed = dict.fromkeys(class_id for class_id in chosen if class_id in confused.queries)
    for a, b, *_ in strongest(confused):
        for class_id in (a, b):
            if len(listed) < most and class_id in confused.queries:
                listed.setdefault(class_id)
    return list(listed)


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
    """A query and its neighbours.

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
    """Rows of the ``most`` queries with the lowest nDCG; of equal ones, common at 0, those whose first hit comes last.

    At most one query of each class until all classes had one: the eight worst are often of one class.

    Example:
        >>> ndcg, mrr = torch.tensor([0.0, 0.0, 0.5, 0.9]), torch.tensor([0.1, 0.05, 0.5, 1.0])
        >>> worst(ndcg, mrr, torch.tensor([4, 4, 4, 7]), 3)
        [1, 3, 0]
    """
    rows = defined(ndcg).tolist()
    order = sorted(rows, key=lambda row: (float(ndcg[row]), float(mrr[row]), row))
    return _one_of_each(order, labels, most)


def typical(ndcg: Tensor, labels: Tensor, most: int) -> list[int]:
    """Rows of the ``most`` queries whose nDCG is nearest to the median, at most one of each class until all had one.

    Ties are broken at random (with a fixed seed), so that they are not all of the first classes.
    """
    rows = defined(ndcg)
    if not len(rows):
        return []
    distance = (ndcg[rows] - ndcg[rows].median()).abs()
    mixed = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    order = rows[mixed[distance[mixed].argsort(stable=True)]]
    return _one_of_each(order.tolist(), labels, most)


def _one_of_each(order: Iterable[int], labels: Tensor, most: int) -> list[int]:
    """In rounds: the first row of each class, then the second of each, ..., in the given order."""
    rounds: dict[int, int] = {}
    placed = []
    for place, row in enumerate(order):
        label = int(labels[row])
        rounds[label] = rounds.get(label, -1) + 1
        placed.append((rounds[label], place, row))
    return [row for _, _, row in sorted(placed)[:most]]


def with_hits(data: ReportData, rows: Iterable[int]) -> list[Shown]:
    """Queries with their neighbours, right or wrong."""
    labels, gallery_labels = data.queries.embeddings.labels, data.searched.embeddings.labels
    shown = []
    for row in rows:
        ids, scores = data.neighbours.ids[row].tolist(), data.neighbours.scores[row].tolist()
        hits = tuple(
            Hit(near, bool(gallery_labels[near] == labels[row]), score) for near, score in zip(ids, scores, strict=True)
        )
        first = round(1 / float(data.report.per_query["mrr"][row]))
        shown.append(Shown(row, float(data.ndcg[row]), first, hits))
    return shown

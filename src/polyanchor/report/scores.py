"""The measures, each with what the queries and what the classes say about its mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyanchor.report.data import defined
from polyanchor.stats.bootstrap import DRAWS, RESAMPLES, bootstrap_interval, paired_bootstrap
from polyanchor.types import Interval, RetrievalReport

NAMES = {"recall": "recall", "precision": "precision", "ndcg": "nDCG", "mrr": "MRR", "r_precision": "R-precision"}


@dataclass(frozen=True)
class Measure:
    """A mean over queries.

    Attributes:
        name: as the report calls it.
        label: as people write it.
        over_queries: mean, and its 95 % percentile interval from resampled queries; None if no query defines it.
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
    """Every measure of a report with both intervals, in the report's order.

    Args:
        report: with the labels of its queries.
        seed: of the draws.

    Example:
        >>> values = torch.tensor([1.0, 0.0, 1.0, float("nan")], dtype=torch.float64)
        >>> found = measures(RetrievalReport({"mrr": values}, {}, 1, 4, 3, labels=torch.tensor([0, 0, 1, 2])))
        >>> round(found[0].over_queries.mean, 4), found[0].over_classes.n, found[0].undefined
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
    many = resamples_for(len(values))
    against = torch.zeros_like(values)  # a mean is its difference to nothing: all columns from the same draws
    found = paired_bootstrap(values, against, None if groups is None else groups.cpu(), resamples=many, seed=seed)
    return {name: one.difference for name, one in zip(names, found, strict=True)}


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
        >>> [(one.class_id, one.means["mrr"]) for one in class_scores(values, torch.tensor([7, 7, 3, 3]), ["mrr"])]
        [(3, 0.25), (7, 0.75)]
    """
    found, which = labels.unique(return_inverse=True)
    totals, means = which.bincount(minlength=len(found)), {}
    kept = torch.zeros_like(totals)
    for name in reversed(names):
        values, rows = per_query[name].double(), defined(per_query[name])
        kept = which[rows].bincount(minlength=len(found))
        means[name] = torch.zeros(len(found), dtype=torch.float64).index_add_(0, which[rows], values[rows]) / kept
    return [
        ClassScore(
            int(number), int(kept[at]), int(totals[at] - kept[at]), {name: float(means[name][at]) for name in names}
        )
        for at, number in enumerate(found)
    ]


def extremes(scores: Sequence[ClassScore], name: str, most: int) -> tuple[list[ClassScore], list[ClassScore]]:
    """The worst and the best classes by one measure, worst and best first; no class is in both.

    Args:
        scores: of all classes; those without a value are left out.
        name: of the measure.
        most: at most so many of each.
    """
    ranked = sorted((one for one in scores if one.queries), key=lambda one: (one.means[name], one.class_id))
    most = min(most, len(ranked) // 2) if len(ranked) > 1 else len(ranked)
    return ranked[:most], ranked[most:][::-1][:most]


def interval_of(values: Tensor, labels: Tensor, class_id: int) -> Interval:
    """Mean over a class's queries and its bootstrap interval from resampled queries of that class.

    Args:
        values: ``(Q,)`` floating, NaN where undefined; at least one of the class is defined.
        labels: ``(Q,)`` int64.
        class_id: of the class.
    """
    return bootstrap_interval(values[labels == class_id])


@dataclass(frozen=True)
class Confusion:
    r"""Of the queries of class a, the share whose nearest neighbour is of class b.

    .. math:: C_{ab} = \frac{1}{|Q_a|} \sum_{q \in Q_a} [\,\text{class of } q\text{'s nearest neighbour} = b\,]

    The rows sum to 1, and the mean of :math:`C_{aa}` over all queries is recall@1.

    Attributes:
        queries: class id -> number of its queries that have something to find.
        counts: a -> b -> number of the queries of a whose nearest neighbour is of b; pairs that occur.
    """

    queries: dict[int, int]
    counts: dict[int, dict[int, int]]

    def share(self, asked: int, found: int) -> float:
        """The share, 0 for a pair that does not occur."""
        return self.counts[asked].get(found, 0) / self.queries[asked]

    def of(self, asked: int) -> list[tuple[int, float]]:
        """The wrong classes that a class's queries find, with their shares, strongest first."""
        wrong = [(b, self.share(asked, b)) for b in self.counts[asked] if b != asked]
        return sorted(wrong, key=lambda pair: (-pair[1], pair[0]))


def confusion(labels: Tensor, nearest: Tensor, known: Tensor) -> Confusion:
    """Count.

    Args:
        labels: ``(Q,)`` int64, classes of the queries.
        nearest: ``(Q,)`` int64, classes of their nearest neighbours.
        known: ``(Q,)`` bool, whether a query has an item of its class to find; others are left out.

    Example:
        >>> found = confusion(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), torch.tensor([True, True, True]))
        >>> found.share(0, 1), found.of(0), found.share(1, 0)
        (0.5, [(1, 0.5)], 0.0)
    """
    pairs, counts = torch.stack([labels, nearest], dim=1)[known].unique(dim=0, return_counts=True)
    asked, sizes = labels[known].unique(return_counts=True)
    found: dict[int, dict[int, int]] = {number: {} for number in asked.tolist()}
    for (a, b), count in zip(pairs.tolist(), counts.tolist(), strict=True):
        found[a][b] = count
    return Confusion(dict(zip(asked.tolist(), sizes.tolist(), strict=True)), found)


def strongest(found: Confusion, most: int | None = None) -> list[tuple[int, int, int, float]]:
    """The pairs of different classes with the largest shares: ``(a, b, queries, share)``.

    Of equal shares the one with more queries comes first.
    """
    wrong = [(a, b, n, found.share(a, b)) for a, counts in found.counts.items() for b, n in counts.items() if a != b]
    return sorted(wrong, key=lambda pair: (-pair[3], -pair[2], pair[:2]))[:most]


def shown_classes(found: Confusion, chosen: Sequence[int], most: int) -> list[int]:
    """Classes for a table of at most so many: all, or the chosen ones and those of the strongest pairs, side by side.

    Args:
        found: of all classes.
        chosen: put first; those without queries are left out.
        most: size of the table; the chosen ones are shown even if they are more.
    """
    everything = sorted(found.queries)
    if len(everything) <= most:
        return everything
    listed = dict.fromkeys(number for number in chosen if number in found.queries)
    for a, b, *_ in strongest(found):
        for number in (a, b):
            if len(listed) < most and number in found.queries:
                listed.setdefault(number)
    return list(listed)

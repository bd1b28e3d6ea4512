"""The measures, each with what the queries and what the classes say about its mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polyanchor.stats.queries import DRAWS, RESAMPLES, paired_bootstrap
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

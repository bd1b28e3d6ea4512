"""How well the queries of each class retrieve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyanchor.report.opening import defined
from polyanchor.stats.queries import bootstrap
from polyanchor.types import Interval


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
    return bootstrap(values[labels == class_id])

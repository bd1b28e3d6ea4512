"""Means over repeated runs: the Student interval, and the paired test of two methods run with the same seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._optional import load
from polyanchor.types import Interval


@dataclass(frozen=True)
class Paired:
    """One method less another, pair by pair.

    Attributes:
        difference: mean difference and its interval.
        p: two-sided p-value of no difference; NaN where the sample says nothing about it.
        resolution: the smallest p that the test can give, 0 for a formula; a p that equals it is an upper bound, not
            a measurement.
    """

    difference: Interval
    p: float
    resolution: float = 0.0

    @property
    def is_bound(self) -> bool:
        """Whether p is an upper bound only.

        Example:
            >>> none = Interval(0.1, 0.05, 0.15, 40)
            >>> Paired(none, 0.0002, resolution=0.0002).is_bound, Paired(none, 0.0002).is_bound
            (True, False)
        """
        return self.p <= self.resolution


def corrected(tests: Sequence[Paired]) -> list[Paired]:
    """The same tests with :func:`holm`'s p, and the resolution that it leaves: that of one times their number.

    Example:
        >>> none = Interval(0.1, 0.05, 0.15, 40)
        >>> [(one.p, one.is_bound) for one in corrected([Paired(none, 0.01, 0.01), Paired(none, 0.5, 0.01)])]
        [(0.02, True), (0.5, False)]
    """
    known = sum(not math.isnan(one.p) for one in tests)
    return [
        Paired(one.difference, p, min(1.0, known * one.resolution))
        for one, p in zip(tests, holm([one.p for one in tests]), strict=True)
    ]


def mean_interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    r"""Mean of independent runs and its Student interval.

    .. math:: \bar v \pm t_{n-1} \frac{s}{\sqrt n}

    It speaks of seeds alone: all runs share one data set, so nothing is said about other data.

    Args:
        values: one number a run.
        confidence: between 0 and 1.

    Returns:
        The interval; its ends are NaN for a single run.

    Raises:
        ValueError: no values, or a confidence outside (0, 1).

    Example:
        >>> found = mean_interval([0.50, 0.52, 0.54])
        >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3), found.n
        (0.52, 0.47, 0.57, 3)
    """
    values, confidence = _check.numbers("values", values), _check.share("confidence", confidence)
    if not values:
        raise InputError("an interval needs at least one value, got none")
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    # scipy's ttest_1samp warns of values that are all the same, and its sem rounds their spread up from 0
    width = load("scipy.stats", "train").t.ppf((1 + confidence) / 2, n - 1)
    half = float(width) * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def paired_t(first: Sequence[float], second: Sequence[float], *, confidence: float = 0.95) -> Paired:
    """The paired Student test: does ``first`` differ from ``second``, run with the same seeds?

    What the seeds decide for both (batches, held-out classes, first weights) cancels, so differences are told apart
    that two separate intervals hide. With five seeds the differences have to be near normal for p to be exact.

    Args:
        first: one number a seed.
        second: of the same seeds, in the same order.
        confidence: of the interval.

    Returns:
        ``first`` less ``second``; with one seed, or without any spread, p is NaN (1 where all differences are 0).

    Raises:
        ValueError: lengths differ, or no values.

    Example:
        >>> found = paired_t([0.53, 0.55, 0.54], [0.50, 0.53, 0.51])
        >>> round(found.difference.mean, 4), round(found.p, 4)
        (0.0267, 0.0153)
    """
    first, second = _check.numbers("first", first), _check.numbers("second", second)
    if len(first) != len(second):
        raise InputError(f"a paired test needs as many values of each, got {len(first)} and {len(second)}")
    differences = [a - b for a, b in zip(first, second, strict=True)]
    interval = mean_interval(differences, confidence=confidence)
    if not any(differences):
        return Paired(interval, 1.0)
    if len(differences) == 1 or max(differences) == min(differences):
        return Paired(interval, math.nan)
    return Paired(interval, float(load("scipy.stats", "train").ttest_rel(first, second).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, by Holm's step-down rule; NaN stays and does not count.

    The chance that any of the true "no difference" among them comes out below a level is at most that level, however
    they depend on each other.

    References:
        Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    p_values = _check.numbers("p_values", p_values)
    if any(not 0 <= p <= 1 for p in p_values if not math.isnan(p)):
        raise InputError(f"p_values must lie in [0, 1], got {p_values}")
    known = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    corrected, highest = [math.nan] * len(p_values), 0.0
    for rank, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        corrected[place] = highest
    return corrected

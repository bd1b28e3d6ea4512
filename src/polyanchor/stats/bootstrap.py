"""The bootstrap of means over queries, resampling single queries or whole classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor.stats.intervals import Paired
from polyanchor.types import Interval

RESAMPLES = 10_000
DRAWS = 200_000_000
"""Numbers drawn for one table: about ten seconds of one core."""
_AT_ONCE = 2**22  # numbers drawn at a time
_CLOSE, _FINER = 0.06, 10  # below this p a conclusion depends on it, and this many times more resamples are drawn


def bootstrap_interval(
    values: Tensor,
    groups: Tensor | None = None,
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean over queries and its percentile interval, from resampled queries or classes.

    Resampling single queries understates the variance, because queries of a class are correlated. ``groups`` resamples
    whole classes, which estimates how the mean would vary over other classes.

    Args:
        values: ``(Q,)`` floating, one measure; NaN (undefined) is left out.
        groups: ``(Q,)`` integer, class of each query; None draws queries.
        resamples: number of resamples.
        confidence: between 0 and 1.
        seed: of the draws.

    Returns:
        The interval; n is the number of queries, or of groups, with a defined value. Its ends are NaN if that is 1.

    Raises:
        ValueError: no defined value, shapes that differ, or a number out of range.

    Example:
        >>> interval = bootstrap_interval(torch.tensor([0.0, 1.0]).repeat(50))
        >>> interval.mean, round(interval.low, 1), round(interval.high, 1), interval.n
        (0.5, 0.4, 0.6, 100)
    """
    _check.real("values", values, "(Q,)")
    if values.ndim != 1:
        raise InputError(f"values must have shape (Q,), got {tuple(values.shape)}")
    return _summaries(values[:, None], groups, resamples, confidence, seed)[0].difference


def paired_bootstrap(
    first: Tensor,
    second: Tensor,
    groups: Tensor | None = None,
    *,
    resamples: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Paired]:
    """Test whether two methods differ on the same queries, for several measures.

    Args:
        first: ``(Q, M)`` floating, M measures of one method (perhaps their means over seeds), NaN where undefined.
        second: ``(Q, M)``, of the other method, for the same queries.
        groups: see :func:`bootstrap_interval`.
        resamples: number of resamples. None: ten thousand, and up to ten times as many, as far as :data:`DRAWS`
            allows, for measures with p below 0.06, where a conclusion depends on p.
        confidence: between 0 and 1.
        seed: of the draws.

    Returns:
        ``first`` less ``second`` for each measure; p is twice the share of resampled differences on the other side of
        0 (counting one more, so that it is never 0), NaN with one query or group. Its resolution is the larger of
        ``2 / (resamples + 1)`` and ``2 ** (1 - n)``, the p of the sign test if all n queries or groups agree.

    Example:
        >>> paired_bootstrap(torch.ones(50, 1), torch.cat([torch.zeros(25, 1), torch.ones(25, 1)]))[0].p < 0.001
        True
    """
    _check.real("first", first, "(Q, M)")
    _check.real("second", second, "(Q, M)")
    _check.one_device("first", first, "second", second)
    if first.shape != second.shape:
        raise InputError(f"first and second must have one shape, got {tuple(first.shape)} and {tuple(second.shape)}")
    values = first.double() - second.double()
    tests = _summaries(values, groups, RESAMPLES if resamples is None else resamples, confidence, seed)
    units = max(len(values) if groups is None else len(groups.unique()), 1)
    more = min(_FINER * RESAMPLES, DRAWS // units)
    close = [column for column, test in enumerate(tests) if test.p < _CLOSE]
    if resamples is None and close and more > RESAMPLES:
        finer = _summaries(values[:, close], groups, more, confidence, seed)
        for column, test in zip(close, finer, strict=True):
            tests[column] = test
    return tests


def resampled_means(
    values: Tensor, groups: Tensor | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> Tensor:
    """Means of resamples with replacement of the queries, or classes; the same draws for every column.

    Args:
        values: ``(Q, M)`` floating, NaN where undefined.
        groups: ``(Q,)`` integer, or None.
        resamples: how many times.
        seed: of the draws.

    Returns:
        ``(resamples, M)`` float64; NaN where nothing defined was drawn.

    Example:
        >>> resampled_means(torch.ones(5, 2), resamples=3).tolist()
        [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    """
    _check.count("resamples", resamples)
    _check.at_least_0("seed", seed)
    sums, counts = _units(values, groups)
    if bool((counts == counts[:, :1]).all()):
        counts = counts[:, :1]  # nothing is undefined, or the same in all columns
    generator = torch.Generator().manual_seed(seed)
    units, means = len(sums), []
    for part in torch.arange(resamples).split(max(_AT_ONCE // units, 1)):
        drawn = torch.randint(units, (len(part), units), generator=generator)
        times = torch.zeros(len(part), units, dtype=torch.float64)
        times.scatter_add_(1, drawn, torch.ones((), dtype=torch.float64).expand(drawn.shape))
        means.append((times @ sums) / (times @ counts))
    return torch.cat(means)


def _summaries(values: Tensor, groups: Tensor | None, resamples: int, confidence: float, seed: int) -> list[Paired]:
    confidence = _check.share("confidence", confidence)
    means = resampled_means(values, groups, resamples=resamples, seed=seed)
    _, counts = _units(values, groups)
    tail = (1 - confidence) / 2
    ends = torch.tensor([tail, 1 - tail], dtype=means.dtype)
    return [
        _summary(mean, column[~column.isnan()], ends, n)
        for mean, column, n in zip(
            values.double().nanmean(dim=0).tolist(), means.unbind(1), (counts > 0).sum(dim=0).tolist(), strict=True
        )
    ]


def _summary(mean: float, means: Tensor, ends: Tensor, n: int) -> Paired:
    if n == 1:
        return Paired(Interval(mean, float("nan"), float("nan"), 1), float("nan"))
    low, high = means.quantile(ends).tolist()
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    step = 2 / (len(means) + 1)
    resolution = max(step, 2.0 ** (1 - n))  # that n signs agree by chance: no resampling tells more of n units
    return Paired(Interval(mean, low, high, n), min(1.0, max((beyond + 1) * step, resolution)), resolution)


def _units(values: Tensor, groups: Tensor | None) -> tuple[Tensor, Tensor]:
    """``(U, M)`` float64: sums and counts of the defined values of each unit of the resampling."""
    _check.real("values", values, "(Q, M)")
    if groups is not None:
        _check.dense("groups", groups, "integers")
        _check.one_device("values", values, "groups", groups)
    if values.ndim != 2 or (groups is not None and groups.shape != values.shape[:1]):
        shapes: Sequence[object] = [tuple(part.shape) for part in (values, groups) if part is not None]
        raise InputError(f"values must be (Q, M) and groups (Q,), got {' and '.join(map(str, shapes))}")
    if groups is not None:
        groups = _check.integer_labels("groups", groups, len(values))
    if values.isinf().any():
        raise InputError("values must be finite, or NaN where undefined, got an infinite one; their mean says nothing")
    defined = ~values.isnan()
    if not bool(defined.any(dim=0).all()):
        raise InputError("a mean needs at least one defined value, got none")
    sums, counts = values.double().nan_to_num(0.0), defined.double()
    if groups is None:
        counted = defined.any(dim=1)
        return sums[counted], counts[counted]
    which = groups.unique(return_inverse=True)[1]
    size = int(which.max()) + 1
    sums, counts = (part.new_zeros(size, part.shape[1]).index_add_(0, which, part) for part in (sums, counts))
    counted = counts.sum(dim=1) > 0
    return sums[counted], counts[counted]

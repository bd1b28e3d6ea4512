"""How well a measure discriminates between methods, and how well two rankings agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._optional import load


def pooled_deviation(values: Tensor) -> float:
    r"""Standard deviation of repeats around their own method's mean, over all methods.

    .. math:: \sqrt{\frac{1}{M (n - 1)} \sum_{m, r} (v_{mr} - \bar v_m)^2}

    Args:
        values: ``(M, n)`` floating, n repeats of M methods, n at least 2.

    Example:
        >>> pooled_deviation(torch.tensor([[1.0, 3.0], [10.0, 10.0]]))
        1.0
    """
    _check.real("values", values, "(methods, repeats)")
    if values.ndim != 2 or values.shape[1] < 2:
        raise InputError(f"a spread needs (methods, 2 or more repeats), got {tuple(values.shape)}")
    return float(values.double().var(dim=1).mean().sqrt())


def discrimination(values: Tensor) -> float:
    r"""Deviation between methods in units of the deviation between repeats; larger is more discriminative.

    .. math:: \sqrt{\max(0, s_{\bar v}^2 - s^2 / n)} \, / \, s

    with the pooled deviation s of n repeats; the variance of the means due to the repeats is subtracted.

    Args:
        values: ``(M, n)`` floating, M and n at least 2.

    Returns:
        0 or more; infinite if only the methods differ.

    Example:
        >>> discrimination(torch.tensor([[0.0, 2.0], [10.0, 12.0]]))
        4.949747468305833
    """
    within = pooled_deviation(values)
    if len(values) < 2:
        raise InputError(f"telling methods apart needs 2 or more, got {len(values)}")
    between = float(values.double().mean(dim=1).var()) - within**2 / values.shape[1]
    if between <= 0:
        return 0.0
    return math.inf if within == 0 else between**0.5 / within


def rank_agreement(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-b of two orders of the same methods: 1 the same, -1 reversed, NaN if one of them is all ties.

    Example:
        >>> round(rank_agreement([0.1, 0.2, 0.3], [0.2, 0.1, 0.3]), 4)
        0.3333
    """
    first, second = _check.numbers("first", first), _check.numbers("second", second)
    if len(first) != len(second):
        raise InputError(f"two orders of the same methods have as many values, got {len(first)} and {len(second)}")
    return float(load("scipy.stats", "train").kendalltau(first, second).statistic)


def mean_rank_agreement(values: Tensor) -> float:
    """Kendall's tau-b between the orders of methods in two repeats, mean over all pairs of repeats.

    Args:
        values: ``(M, n)`` floating, n repeats of M methods.

    Example:
        >>> round(mean_rank_agreement(torch.tensor([[1.0, 1.0], [2.0, 3.0], [3.0, 2.0]])), 4)
        0.3333
    """
    _check.real("values", values, "(methods, repeats)")
    if values.ndim != 2:
        raise InputError(f"values must have shape (methods, repeats), got {tuple(values.shape)}")
    agreements = [rank_agreement(a, b) for a, b in combinations(values.T.tolist(), 2)]
    return float(torch.tensor(agreements, dtype=torch.float64).nanmean()) if agreements else math.nan

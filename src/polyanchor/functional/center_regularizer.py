"""A penalty that merges redundant local centres of a class."""

from __future__ import annotations

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor.functional.similarity import unit_rows

_ROUNDING = 8  # in units of the dtype's eps: rounding error of the cosine of two equal directions


def center_regularizer(proxies: Tensor) -> Tensor:
    r"""Half the mean chord length between the local centres of a class on the unit sphere.

    .. math::
        \frac{1}{C K (K - 1)} \sum_c \sum_{j < k} \sqrt{2 - 2 \cos(p_{cj}, p_{ck})}

    The root is the norm of the difference of two unit vectors, not its square, so it pulls with the same strength at
    any distance and lets centres coincide, as an L1 penalty makes coefficients vanish. Two centres coincide if
    ``1 - cos`` is at most 8 times the dtype's eps (an angle of 0.08 degrees in float32), where the cosine is rounding
    error; the gradient there is 0, one of the subgradients at the kink. Elsewhere the gradient of a pair is at most
    of length 1 / length of the proxy.

    Args:
        proxies: ``(C, K, D)`` floating, of any length; K local centres of each of C classes.

    Returns:
        ``()`` in [0, 1], in the dtype of ``proxies``, at least float32; 0 for K = 1. Memory C K^2 beside the
        normalised proxies; always computed in float32 or wider, even under autocast.

    Raises:
        TypeError: ``proxies`` are not floating.
        ValueError: ``proxies`` have another shape, or, on a CPU, are not finite.

    References:
        Qian et al., SoftTriple Loss, ICCV 2019, arXiv:1909.05235, its regulariser with the normalisation of the
        authors' code, which pytorch-metric-learning's ``SparseCentersRegularizer`` has too.

    Example:
        >>> center_regularizer(torch.eye(4).view(2, 2, 4)).round(decimals=4)  # right angles: sqrt(2) / 2
        tensor(0.7071)
        >>> center_regularizer(torch.ones(2, 3, 4))
        tensor(0.)
    """
    _check.centres(proxies)
    classes, centres, _ = proxies.shape
    with torch.autocast(proxies.device.type, enabled=False):
        directions = unit_rows(proxies.to(torch.promote_types(proxies.dtype, torch.float32)))
        if centres == 1:
            zero = directions.sum() * 0  # with a (zero) gradient, as for any other K
            _check.finite_proxies(proxies, zero)
            return zero
        first, second = torch.triu_indices(centres, centres, offset=1, device=proxies.device)
        gaps = 1 - (directions @ directions.mT)[:, first, second]  # (C, K (K - 1) / 2)
        apart = ~(gaps <= _ROUNDING * torch.finfo(gaps.dtype).eps)  # True for NaN
        chords = torch.where(apart, 2 * gaps, 1).sqrt().where(apart, 0)  # the root has no slope at 0
        penalty = chords.sum() / (classes * centres * (centres - 1))
        _check.finite_proxies(proxies, penalty)
        return penalty

"""The pull: the pairs of an item and its own class, which are few, so all of them are settled at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polyanchor.kernels.blocks import Part, inverse_lengths
from polyanchor.kernels.family import Counts, Family, lse0
from polyanchor.kernels.pooling import LOG2_E, Pool


class Pull:
    """Exponents of the pull, their sums and their gradients.

    Args:
        own: ``(p, K)`` cosines of the pairs.
        rows: ``(p,)`` int64, the item of each pair.
        classes: ``(p,)`` int64, its class.
        shape: ``(B, C)``.
        family: the loss.

    Attributes:
        sums: log of the sum of exponentials, ``(C,)`` class-wise or ``(B,)`` item-wise; -inf over nothing.
    """

    def __init__(self, own: Tensor, rows: Tensor, classes: Tensor, shape: tuple[int, int], family: Family) -> None:
        self._family, self._rows, self._classes = family, rows, classes
        self._exponents = _pooled(own, family).sub_(family.delta).mul_(-family.alpha)
        self.sums = own.new_full((shape[1] if family.pull_by_class else shape[0],), -math.inf)
        if not family.pull_by_class:
            self.sums[rows] = self._exponents
        elif len(own):
            largest = self.sums.scatter_reduce(0, classes, self._exponents, "amax")
            shifted = (self._exponents - largest[classes]).exp_()
            self.sums = torch.zeros_like(largest).index_add_(0, classes, shifted).log_().add_(largest)

    def weights(self, sums: Tensor, counts: Counts) -> Tensor:
        """``(p,)`` gradient with respect to the pooled cosine of each pair, given the sums over all parts."""
        total = lse0(sums)[self._classes if self._family.pull_by_class else self._rows]
        size = counts.present if self._family.pull_by_class else counts.items
        return (self._exponents - total).exp_().mul_(-self._family.alpha) / size


def own_cosines(part: Part, rows: Tensor, classes: Tensor) -> Tensor:
    """``(p, K)`` cosines of items and the proxies of their classes, from the vectors."""
    proxies = part.proxies[classes]
    cosines = proxies.new_empty(*proxies.shape[:2], 1)
    torch.bmm(proxies, part.units[rows, :, None], out=cosines)  # with out=, autocast leaves it alone
    return cosines.squeeze(2) * inverse_lengths(proxies)


def _pooled(cosines: Tensor, family: Family) -> Tensor:
    """``(p, K)`` -> ``(p,)``."""
    if cosines.shape[1] == 1:
        return cosines.squeeze(1)
    unit = LOG2_E / family.gamma
    column = (cosines * unit)[:, :, None]
    return Pool(family.pooling, shift=family.narrow, like=column).forward(column).squeeze(1).div_(unit)

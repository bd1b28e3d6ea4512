"""The pull: the pairs of an item and its own class, which are few, so all of them are settled at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polyanchor.kernels.blocks import Block, Part, Scores, inverse_lengths
from polyanchor.kernels.family import Counts, Family, lse0
from polyanchor.kernels.pooling import LOG2_E, Pool


class Pull:
    """Exponents of the pull, their sums and their gradients; pairs stand in order of class.

    Args:
        part: what this process holds; items of classes held elsewhere have no pair here.
        family: the loss.
        blocks: of the part; they know the pairs.
        scores: where there is one block, the pairs are read off its scores.
    """

    def __init__(self, part: Part, family: Family, blocks: list[Block], scores: Scores) -> None:
        self._family = family
        self._rows = blocks[0].rows if len(blocks) == 1 else torch.cat([block.rows for block in blocks])
        self._classes = part.labels[self._rows]
        self._counts = [len(block.rows) for block in blocks]
        if len(blocks) == 1:
            own = scores.of(blocks[0])[self._classes, :, self._rows] / scores.unit  # (p, K)
        else:
            proxies = part.proxies[self._classes]
            own = torch.bmm(proxies, part.units[self._rows, :, None]).squeeze(2) * inverse_lengths(proxies)
        self._exponents = _pooled(own, family).sub_(family.delta).mul_(-family.alpha)
        size = len(part.proxies) if family.pull_by_class else len(part.units)
        self.sums = own.new_full((size,), -math.inf)  # log of the sum of exponentials, (C,) or (B,)
        if not family.pull_by_class:
            self.sums[self._rows] = self._exponents
        elif len(own):
            largest = self.sums.scatter_reduce(0, self._classes, self._exponents, "amax")
            shifted = (self._exponents - largest[self._classes]).exp_()
            self.sums = torch.zeros_like(largest).index_add_(0, self._classes, shifted).log_().add_(largest)

    def weights(self, sums: Tensor, counts: Counts) -> tuple[Tensor, ...]:
        """``(p,)`` gradient with respect to the pooled cosine of each pair, block by block, given all sums."""
        total = lse0(sums)[self._classes if self._family.pull_by_class else self._rows]
        size = counts.present if self._family.pull_by_class else counts.items
        return ((self._exponents - total).exp_().mul_(-self._family.alpha) / size).split(self._counts)


def _pooled(cosines: Tensor, family: Family) -> Tensor:
    """``(p, K)`` -> ``(p,)``."""
    if cosines.shape[1] == 1:
        return cosines.squeeze(1)
    unit = LOG2_E / family.gamma
    column = (cosines * unit)[:, :, None]
    return Pool(family.pooling, shift=family.narrow, like=column).forward(column).squeeze(1).div_(unit)

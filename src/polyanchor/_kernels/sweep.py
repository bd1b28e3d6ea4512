r"""The loss and the gradients of embeddings and proxies, from one sweep over blocks of classes.

This module computes the push term block by block; the pull term is computed beforehand. A class-wise logarithm of the
push is complete within the block of its class, so each block is visited once. An item-wise one is complete only after
the last block: a forward pass collects the sums, a backward pass spreads the gradients. Meanwhile the scores lie in the
memory of the proxies' gradient, which usually has more columns than the batch has rows; otherwise they are kept as far
as the budget allows and else computed twice.

With :math:`t = \log(1 + \sum e^z)`, the gradient with respect to an exponent z is :math:`e^{z - t}`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from polyanchor._kernels.blocks import KEPT_BYTES, Block, Part, Scores, cut, inverse_lengths, ordinary
from polyanchor._kernels.options import Counts, LogSums, LossOptions, lse0
from polyanchor._kernels.pooling import LOG2_E, Pool


class SweepResult(NamedTuple):
    """Outcome of a sweep.

    Attributes:
        sums: inside the logarithms; ``sums.loss(options, counts)`` is the loss.
        to_units: ``(B, D)`` gradient of the unit rows, or None if not wanted.
        to_proxies: ``(C, K, D)`` gradient of the proxies themselves, or None if not wanted.
    """

    sums: LogSums
    to_units: Tensor | None
    to_proxies: Tensor | None


def sweep(
    part: Part,
    options: LossOptions,
    counts: Counts,
    *,
    merge: Callable[[LogSums], LogSums] | None = None,
    wants: tuple[bool, ...] = (True, True),
    keep: int = KEPT_BYTES,
) -> SweepResult:
    """Loss and gradients of all classes and rows, or of a part of either.

    Args:
        part: classes and rows of this process.
        options: the loss.
        counts: of all processes together.
        merge: sums of this part -> sums over all parts, by ``torch.logaddexp`` of those that are shared: the item-wise
            ones where the classes are parted, the class-wise ones where the rows are. None for a single part.
        wants: gradient of the units, gradient of the proxies.
        keep: bytes of scores that may be kept between the two passes.

    Returns:
        Sums over all parts, and gradients. With a part of the classes ``to_units`` is a summand of the whole, and
        ``to_proxies`` is whole; with a part of the rows it is the other way round.
    """
    state = forward_sweep(part, options, counts, alone=merge is None, wants=wants, keep=keep)
    return state.finish(state.sums() if merge is None else merge(state.sums()))


def forward_sweep(
    part: Part,
    options: LossOptions,
    counts: Counts,
    *,
    alone: bool,
    wants: tuple[bool, ...] = (True, True),
    keep: int = KEPT_BYTES,
) -> Sweep:
    """The forward pass of :func:`sweep`, for a process that merges several parts: ``sums()``, then ``finish(sums)``.

    ``alone`` means that the class-wise sums of the part are complete; the other arguments are those of :func:`sweep`.
    """
    at_once = alone and options.push_by_class
    for careful in (False, True):
        state = Sweep(part, options, counts, wants, at_once=at_once, keep=keep, careful=careful)
        state.forward()
        if ordinary(state.inverse):
            break  # lengths of 0 or 1e20 are so rare that a second run is cheaper than a check of every block
    return state


class Sweep:
    """A sweep over one part: its arrays, and the steps on one block.

    Scores are cosines in the unit of their first exponential, to base 2. Exponents of the push omit their constant
    alpha delta, and gradients are in units of alpha / (number of logarithms of the push), which saves passes.
    """

    def __init__(
        self,
        part: Part,
        options: LossOptions,
        counts: Counts,
        wants: tuple[bool, ...],
        *,
        at_once: bool,
        keep: int,
        careful: bool,
    ) -> None:
        self._options, self._counts, self._careful = options, counts, careful
        self._spreads = at_once and any(wants)
        self._spreads_later = not at_once and any(wants)
        centres = part.proxies.shape[1]
        self._blocks, self.inverse = cut(part)
        unit = LOG2_E * (options.alpha if centres == 1 else 1 / options.gamma)
        self._scores = Scores(self._blocks, part.units, unit=unit, careful=careful)
        buffer = self._scores.buffer
        self._pool = Pool(options.pooling, shift=options.narrow, like=buffer) if centres > 1 else None
        self._push_buffer = torch.empty_like(buffer[:, 0])
        self._gain = options.alpha / (counts.classes if options.push_by_class else counts.items)
        self._scaled_units = part.units * self._gain if wants[1] else None
        self._to_units = torch.zeros_like(part.units) if wants[0] else None
        self._to_proxies = torch.empty_like(part.proxies) if wants[1] else None
        if self._spreads_later:
            self._scores.keep(self._to_proxies, keep)
        # sums of exponentials, or their logarithms where they are steep
        self._push = part.units.new_zeros(len(part.proxies) if options.push_by_class else len(part.units))
        if options.steep:
            self._push.fill_(-math.inf)
        rows = torch.cat([block.rows for block in self._blocks])
        classes = part.labels[rows]
        if len(self._blocks) == 1:  # its scores are needed anyway, and stay in the buffer
            own = self._scores.of(self._blocks[0])[classes, :, rows] / unit
        else:
            own = own_cosines(part, rows, classes)
        self._pull = Pull(own, rows, classes, (len(part.units), len(part.proxies)), options)

    def forward(self) -> None:
        """Collect the sums; where those of a block are complete within it, spread its gradients at once."""
        pulls = self._pulls(self._pull.sums)
        for block, pull in zip(self._blocks, pulls, strict=True):
            scores, pooled, push = self._scored(block)
            sums = self._collect(block, push)
            if self._spreads:
                self._spread(block, scores, pooled, self._weigh(push, self._offset(sums)[:, None]), pull)

    def backward(self, sums: LogSums) -> None:
        """Spread the gradients, given the sums over all parts."""
        offset = self._options.alpha * self._options.delta - lse0(sums.push)
        if not self._options.steep:
            offset = offset.exp_()
        pulls = self._pulls(sums.pull)
        for block, pull in zip(reversed(self._blocks), reversed(pulls), strict=True):
            scores, pooled, push = self._scored(block)
            of_block = offset[block.span, None] if self._options.push_by_class else offset[None]
            self._spread(block, scores, pooled, self._weigh(push, of_block), pull)

    def sums(self) -> LogSums:
        """The sums of this part."""
        push = self._push if self._options.steep else self._push.log()
        return LogSums(self._pull.sums, push + self._options.alpha * self._options.delta)

    def finish(self, sums: LogSums) -> SweepResult:
        """The result, given the sums over all parts; to be called once."""
        if self._spreads_later:
            self.backward(sums)
        return SweepResult(sums, None if self._to_units is None else self._to_units.mul_(self._gain), self._to_proxies)

    def _pulls(self, sums: Tensor) -> tuple[Tensor, ...]:
        """``(p,)`` gradients of the own pairs of each block."""
        return self._pull.weights(sums, self._counts).split([len(block.rows) for block in self._blocks])

    def _scored(self, block: Block) -> tuple[Tensor, Tensor, Tensor]:
        """``(c, K, B)`` scores, ``(c, B)`` pooled scores, and of the push the exponentials (or steep exponents)."""
        options, scores, push = self._options, self._scores.of(block), self._push_buffer[: len(block.proxies)]
        if self._pool is None:
            pooled = scores[:, 0]
            torch.exp2(pooled, out=push)
        else:
            pooled = self._pool.forward(scores)
            torch.mul(pooled, options.alpha * options.gamma, out=push).exp2_()
        if options.steep:
            torch.mul(pooled, options.alpha / self._scores.unit, out=push)
        push.view(-1).index_fill_(0, block.flat, -math.inf if options.steep else 0.0)
        return scores, pooled, push

    def _collect(self, block: Block, push: Tensor) -> Tensor:
        """Add the block's exponentials to the sums; returns the class-wise ones of the block, or all item-wise ones."""
        steep = self._options.steep
        if not self._options.push_by_class:
            self._push = torch.logaddexp(self._push, push.logsumexp(0)) if steep else self._push.add_(push.sum(0))
            return self._push
        sums = self._push[block.span]
        return torch.logsumexp(push, 1, out=sums) if steep else torch.sum(push, 1, out=sums)

    def _offset(self, sums: Tensor) -> Tensor:
        """What to add to the exponents, or to multiply the exponentials with, to get weights."""
        constant = self._options.alpha * self._options.delta
        if self._options.steep:
            return constant - lse0(sums + constant)
        return (sums + math.exp(-constant)).reciprocal_()

    def _weigh(self, push: Tensor, offset: Tensor) -> Tensor:
        """``(c, B)`` gradient of the push with respect to the pooled cosines; overwrites ``push``."""
        return push.add_(offset).exp_() if self._options.steep else push.mul_(offset)

    def _spread(self, block: Block, scores: Tensor, pooled: Tensor, weights: Tensor, pull: Tensor) -> None:
        """Add the block's share to the gradients; overwrites its arguments."""
        weights.view(-1).index_copy_(0, block.flat, pull / self._gain)
        gradient = weights[:, None] if self._pool is None else self._pool.backward(scores, pooled, weights)
        gradient.mul_(block.inverse[:, :, None])  # (c, K, B), now with respect to the product of unit row and proxy
        flat = gradient.view(-1, gradient.shape[2])
        if self._to_units is not None:
            self._to_units.addmm_(flat.T, block.proxies.flatten(0, 1))
        if self._to_proxies is not None and self._scaled_units is not None:
            # The gradient is orthogonal to the proxy: its component along it, (sum over i of g s), is subtracted.
            along = scores.mul_(gradient).sum(dim=2)
            out = self._to_proxies[block.span]  # may be the memory of the scores, which are gone from here on
            torch.mm(flat, self._scaled_units, out=out.flatten(0, 1))
            if self._careful:  # the square of an inverse length may overflow
                directions = block.proxies * block.inverse[:, :, None]
            else:
                directions = block.proxies
                along.mul_(block.inverse)
            out.addcmul_(directions, along[:, :, None], value=-self._gain / self._scores.unit)


class Pull:
    """The pull of pairs: ``(p, K)`` cosines, ``(p,)`` rows and classes, and ``shape`` ``(B, C)``.

    Attributes:
        sums: log of the sum of exponentials, ``(C,)`` class-wise or ``(B,)`` item-wise; -inf over nothing.
    """

    def __init__(
        self, own: Tensor, rows: Tensor, classes: Tensor, shape: tuple[int, int], options: LossOptions
    ) -> None:
        self._options, self._rows, self._classes = options, rows, classes
        self._exponents = _pooled(own, options).sub_(options.delta).mul_(-options.alpha)
        self.sums = own.new_full((shape[1] if options.pull_by_class else shape[0],), -math.inf)
        if not options.pull_by_class:
            self.sums[rows] = self._exponents
        elif len(own):
            largest = self.sums.scatter_reduce(0, classes, self._exponents, "amax")
            shifted = (self._exponents - largest[classes]).exp_()
            self.sums = torch.zeros_like(largest).index_add_(0, classes, shifted).log_().add_(largest)

    def weights(self, sums: Tensor, counts: Counts) -> Tensor:
        """``(p,)`` gradient with respect to the pooled cosine of each pair, given the sums over all parts."""
        total = lse0(sums)[self._classes if self._options.pull_by_class else self._rows]
        size = counts.present if self._options.pull_by_class else counts.items
        return (self._exponents - total).exp_().mul_(-self._options.alpha) / size


def own_cosines(part: Part, rows: Tensor, classes: Tensor) -> Tensor:
    """``(p, K)`` cosines of items and the proxies of their classes, from the vectors."""
    proxies = part.proxies[classes]
    cosines = proxies.new_empty(*proxies.shape[:2], 1)
    torch.bmm(proxies, part.units[rows, :, None], out=cosines)  # with out=, autocast leaves it alone
    return cosines.squeeze(2) * inverse_lengths(proxies)


def _pooled(cosines: Tensor, options: LossOptions) -> Tensor:
    """``(p, K)`` -> ``(p,)``."""
    if cosines.shape[1] == 1:
        return cosines.squeeze(1)
    unit = LOG2_E / options.gamma
    column = (cosines * unit)[:, :, None]
    return Pool(options.pooling, shift=options.narrow, like=column).forward(column).squeeze(1).div_(unit)

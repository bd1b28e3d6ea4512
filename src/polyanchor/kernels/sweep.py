r"""The loss, the gradient of the embeddings and the gradient of the proxies out of one sweep over blocks of classes.

A class-wise logarithm is complete within the block that holds the class, so there each block is looked at once. An
item-wise one is complete only behind the last block: the sweep goes up to collect the sums and down again to spread the
gradients. On the way the scores wait in the memory of the proxies' gradient, which is not yet written and as a rule has
more columns than the batch has rows; only where it has not, and they are too many to be kept, are they computed twice.

With :math:`t = \log(1 + \sum e^z)`, the gradient with respect to an exponent z is :math:`e^{z - t}`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from polyanchor.kernels.blocks import KEPT_BYTES, Block, Part, Scores, cut, ordinary
from polyanchor.kernels.family import Counts, Family, LogSums, lse0
from polyanchor.kernels.pooling import LOG2_E, Pool


class Seen(NamedTuple):
    """A block between its scores and its gradients.

    Attributes:
        scores: ``(c, K, B)`` cosines in the unit of the pooling.
        pooled: ``(c, B)`` in the same unit.
        pull: ``(p,)`` exponents of the block's own pairs.
        push: ``(c, B)`` exponents less alpha delta if they are steep, else the exponentials of these; own pairs are
            -inf, or 0.
    """

    scores: Tensor
    pooled: Tensor
    pull: Tensor
    push: Tensor


class Swept(NamedTuple):
    """Outcome of a sweep.

    Attributes:
        sums: what the logarithms hold; ``sums.loss(family, counts)`` is the loss.
        to_units: ``(B, D)`` gradient of the unit rows, or None if not wanted.
        to_proxies: ``(C, K, D)`` gradient of the proxies themselves, or None if not wanted.
    """

    sums: LogSums
    to_units: Tensor | None
    to_proxies: Tensor | None


def sweep(
    part: Part,
    family: Family,
    counts: Counts,
    *,
    merge: Callable[[LogSums], LogSums] | None = None,
    wants: tuple[bool, bool] = (True, True),
    keep: int = KEPT_BYTES,
) -> Swept:
    """Loss and gradients of all classes and rows, or of a part of either.

    Args:
        part: what this process holds.
        family: the loss.
        counts: of all processes together.
        merge: given the sums of this part, returns those over all parts: ``torch.logaddexp`` of what is shared. With a
            part of the classes the item-wise sums are shared, with a part of the rows the class-wise ones. None if
            nothing is.
        wants: gradient of the units, gradient of the proxies.
        keep: bytes of scores that may be held between the two directions.

    Returns:
        Sums over all parts, and gradients. With a part of the classes ``to_units`` is a summand of the whole, and
        ``to_proxies`` is whole; with a part of the rows it is the other way round.

    Example:
        >>> part = Part(torch.eye(2), torch.eye(2)[:, None], torch.tensor([0, 1]))
        >>> counts = Counts.of(part.labels, 2)
        >>> sweep(part, Family(), counts).sums.loss(Family(), counts).round(decimals=4)
        tensor(3.2400)
    """
    at_once = family.push_by_class and merge is None
    for careful in (False, True):
        work = _Sweep(part, family, counts, wants, twice=not at_once, keep=keep, careful=careful)
        sums = work.up(spread=at_once and any(wants))
        if ordinary(work.inverse):
            break  # lengths of 0 or 1e20 are so rare that a second run may answer them, and not a look at every block
    if merge is not None:
        sums = merge(sums)
    if not at_once and any(wants):
        work.down(sums)
    return Swept(sums, *work.gradients())


class _Sweep:
    """The arrays of one part, and what is done with a block of it.

    Gradients are held in units of alpha / (number of logarithms of the push), so that the push needs no factor.
    """

    def __init__(
        self,
        part: Part,
        family: Family,
        counts: Counts,
        wants: tuple[bool, bool],
        *,
        twice: bool,
        keep: int,
        careful: bool = False,
    ) -> None:
        self._part, self._family = part, family
        classes, centres, _ = part.proxies.shape
        rows = len(part.units)
        self._blocks, self.inverse = cut(part)
        self._unit = LOG2_E * (family.alpha if centres == 1 else 1 / family.gamma)  # of the scores
        self._scores = Scores(self._blocks, part.units * self._unit, careful=careful)
        buffer = self._scores.buffer
        self._pool = Pool(family.pooling, shift=family.narrow, like=buffer) if centres > 1 else None
        self._push_work = torch.empty_like(buffer[:, 0])
        self._gain = family.alpha / (counts.classes if family.push_by_class else counts.items)
        pulls = counts.present.to(part.units.dtype) if family.pull_by_class else part.units.new_tensor(counts.items)
        self._pull_gain = -family.alpha / self._gain / pulls
        self._scaled_units = part.units * self._gain if wants[1] else None
        self._to_units = torch.zeros_like(part.units) if wants[0] else None
        self._to_proxies = torch.empty_like(part.proxies) if wants[1] else None
        if twice and any(wants):
            self._scores.keep(self._to_proxies, keep)
        self._pull = part.units.new_full((classes if family.pull_by_class else rows,), -math.inf)
        self._push = part.units.new_full((classes if family.push_by_class else rows,), -math.inf)
        self._pull_exponents = part.units.new_full((rows,), -math.inf)

    def up(self, *, spread: bool) -> LogSums:
        """Collect all sums; spread the gradients in the same go, where the sums of a block are complete in it."""
        for block in self._blocks:
            seen = self._look(block)
            self._collect(block, seen)
            if spread:
                pull_total = lse0(self._pull[block.here]).index_select(0, block.classes)
                offset = self._family.alpha * self._family.delta - lse0(self._push[block.here])
                self._spread(block, seen, (seen.pull - pull_total).exp_(), offset[:, None])
        return LogSums(self._pull, self._push)

    def down(self, sums: LogSums) -> None:
        """Spread the gradients, the sums being complete."""
        family, labels = self._family, self._part.labels
        pull_total, offset = lse0(sums.pull), family.alpha * family.delta - lse0(sums.push)
        if family.pull_by_class:
            pull_total = pull_total[labels.clamp(0, len(pull_total) - 1)]
        pull = (self._pull_exponents - pull_total).exp_()
        for block in reversed(self._blocks):
            over = offset[block.here, None] if family.push_by_class else offset[None]
            self._spread(block, self._look(block), pull[block.rows], over)

    def gradients(self) -> tuple[Tensor | None, Tensor | None]:
        """What has been spread."""
        return None if self._to_units is None else self._to_units.mul_(self._gain), self._to_proxies

    def _look(self, block: Block) -> Seen:
        """From proxies to exponents."""
        family, scores = self._family, self._scores.of(block)
        pooled = scores[:, 0] if self._pool is None else self._pool.forward(scores)
        push = self._push_work[: len(pooled)]
        pull = pooled.take(block.flat).mul_(-family.alpha / self._unit).add_(family.alpha * family.delta)
        if self._pool is not None:
            torch.mul(pooled, family.alpha * LOG2_E / self._unit, out=push)
            push = push.mul_(1 / LOG2_E) if family.steep else push.exp2_()
        elif family.steep:
            torch.mul(pooled, 1 / LOG2_E, out=push)
        else:
            torch.exp2(pooled, out=push)
        push.view(-1).index_fill_(0, block.flat, -math.inf if family.steep else 0.0)
        return Seen(scores, pooled, pull, push)

    def _collect(self, block: Block, seen: Seen) -> None:
        """Add the block's exponentials to the sums."""
        family = self._family
        self._pull_exponents[block.rows] = seen.pull
        if not family.pull_by_class:
            self._pull[block.rows] = seen.pull
        elif len(seen.pull):
            largest = self._pull[block.here].scatter_reduce(0, block.classes, seen.pull, "amax")
            summed = torch.zeros_like(largest).index_add_(0, block.classes, (seen.pull - largest[block.classes]).exp_())
            self._pull[block.here] = summed.log_().add_(largest)
        axis = 1 if family.push_by_class else 0
        summed = seen.push.logsumexp(axis) if family.steep else seen.push.sum(axis).log_()
        summed.add_(family.alpha * family.delta)
        if family.push_by_class:
            self._push[block.here] = summed
        else:
            self._push = torch.logaddexp(self._push, summed)

    def _spread(self, block: Block, seen: Seen, pull: Tensor, offset: Tensor) -> None:
        """Add the block's share to the gradients; uses up what was seen.

        Args:
            block: whose gradients.
            seen: from :meth:`_look`.
            pull: ``(p,)`` shares of the own pairs, exp(z - t).
            offset: ``(c, 1)`` or ``(1, B)``, alpha delta - t of the push.
        """
        weights = seen.push.add_(offset).exp_() if self._family.steep else seen.push.mul_(offset.exp())
        weights.view(-1).index_copy_(0, block.flat, pull.mul_(self._pull_gain))  # (c, B) gradient by pooled cosine
        gradient = weights[:, None] if self._pool is None else self._pool.backward(seen.scores, seen.pooled, weights)
        gradient.mul_(block.inverse[:, :, None])  # (c, K, B), now by the product of unit row and proxy
        flat = gradient.view(-1, gradient.shape[2])
        if self._to_units is not None:
            self._to_units.addmm_(flat.T, block.proxies.flatten(0, 1))
        if self._to_proxies is not None and self._scaled_units is not None:
            # Only what is across a proxy turns it: the part along it is (sum over i of g s) times its direction.
            along = seen.scores.mul_(gradient).sum(dim=2).mul_(block.inverse)
            out = self._to_proxies[block.here]  # the scores may live in its memory: from here on they are gone
            torch.mm(flat, self._scaled_units, out=out.flatten(0, 1))
            out.addcmul_(block.proxies, along[:, :, None], value=-self._gain / self._unit)

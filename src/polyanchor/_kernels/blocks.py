"""Blocks of classes: their pairs of an item and its own class, and their scores."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK_SCORES = 360_000  # scores of a block: 1.4 MB in float32, so that passes over it stay in cache
FEWEST_PROXIES, MOST_PROXIES = 256, 2048
KEPT_BYTES = 40 * 2**20  # of scores that are needed twice
LONG, SHORT = 1e15, 1e-15  # beyond these the square of a length may leave the range of float32


@dataclass(frozen=True)
class Part:
    """All of the classes and rows, or the part of either that one process holds.

    ``units`` are ``(B, D)`` rows of length 1 (or 0), ``proxies`` ``(C, K, D)`` contiguous, of any length, ``labels``
    ``(B,)`` int64, counted from the part's first class; outside ``[0, C)`` for items of other classes.
    """

    units: Tensor
    proxies: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Block:
    """Neighbouring classes, and the pairs of an item and its own class among them.

    Attributes:
        span: the classes.
        proxies: ``(c, K, D)`` view of their proxies.
        inverse: ``(c, K)`` view for 1 / length of the proxies.
        rows: ``(p,)`` int64, the items whose class is in the block, in order of class.
        classes: ``(p,)`` int64, their classes, counted from the block's first.
        flat: ``(p,)`` int64, indices of the pairs in a flattened ``(c, B)`` array.
    """

    span: slice
    proxies: Tensor
    inverse: Tensor
    rows: Tensor
    classes: Tensor
    flat: Tensor


def cut(part: Part) -> tuple[list[Block], Tensor]:
    """Cut the classes into blocks of about BLOCK_SCORES scores, and of 256 to 2,048 proxies.

    Also returns the uninitialised ``(C, K)`` array that their ``inverse`` are views of.
    """
    classes, centres, _ = part.proxies.shape
    rows, device = len(part.units), part.labels.device
    step = max(1, min(max(BLOCK_SCORES // rows, FEWEST_PROXIES), MOST_PROXIES) // centres)
    starts = list(range(0, classes, step))
    ordered, order = part.labels.sort(stable=True)
    cuts = torch.searchsorted(ordered, torch.tensor([*starts, classes], device=device)).tolist()
    held = slice(cuts[0], cuts[-1])  # without items of classes of other processes
    order, ordered = order[held], ordered[held] % step  # every block but the last has step classes
    counts = [end - start for start, end in itertools.pairwise(cuts)]
    inverse = part.units.new_empty(classes, centres)
    views = zip(
        starts,
        part.proxies.split(step),
        inverse.split(step),
        order.split(counts),
        ordered.split(counts),
        (ordered * rows + order).split(counts),
        strict=True,
    )
    return [Block(slice(start, start + step), *tensors) for start, *tensors in views], inverse


class Scores:
    """Cosines times ``unit``, of one block of classes at a time.

    The proxies are never normalised in memory: their inverse lengths scale the scores. ``careful`` keeps squares of
    very long and very short proxies finite, at the price of a few passes. ``buffer`` ``(c, K, B)`` is as large as the
    largest block, for blocks whose scores are not kept.
    """

    def __init__(self, blocks: list[Block], units: Tensor, *, unit: float, careful: bool = False) -> None:
        units, self.unit = units * unit, unit
        classes, centres, _ = blocks[0].proxies.shape
        self._blocks, self._careful = blocks, careful
        # (D, B): faster than the transposed view, if there are several products to gain from it
        self._columns = units.T.contiguous() if len(blocks) > 1 else units.T
        self.buffer = units.new_empty(classes, centres, len(units))
        self._kept: dict[int, Tensor] = {}
        self._filled: set[int] = set()
        self._in_buffer = -1

    def keep(self, gradient: Tensor | None, budget: int) -> None:
        """Keep scores for a second pass: in the memory of the proxies' gradient, or else in ``budget`` bytes.

        The gradient has D numbers for each proxy, the scores B. Each block must be used up before its gradient is
        written.
        """
        rows, size = self.buffer.shape[2], self.buffer.element_size() * self.buffer.numel()
        if gradient is not None and rows <= gradient.shape[2]:
            for block in self._blocks:
                room = gradient[block.span].view(-1)
                shape = len(block.proxies), self.buffer.shape[1], rows
                self._kept[block.span.start] = room[: math.prod(shape)].view(shape)
        else:
            for block in self._blocks[max(0, len(self._blocks) - budget // size) :]:
                self._kept[block.span.start] = torch.empty_like(self.buffer[: len(block.proxies)])

    def of(self, block: Block) -> Tensor:
        """``(c, K, B)`` scores; those that are not kept are overwritten by the next such block."""
        start = block.span.start
        kept = self._kept.get(start)
        out = self.buffer[: len(block.proxies)] if kept is None else kept
        if start in self._filled or start == self._in_buffer:
            return out
        if kept is None:
            self._in_buffer = start
        else:
            self._filled.add(start)
        if self._careful:
            block.inverse.copy_(careful_inverse_lengths(block.proxies))
        else:
            torch.linalg.vector_norm(block.proxies, dim=2, out=block.inverse).reciprocal_()
        torch.mm(block.proxies.flatten(0, 1), self._columns, out=out.view(-1, out.shape[2]))
        return out.mul_(block.inverse[:, :, None])


def inverse_lengths(vectors: Tensor) -> Tensor:
    """``(..., D)`` -> ``(...)`` 1 / length, and 0 for length 0; squares of very long and short rows stay finite."""
    if vectors.device.type == "cpu":  # elsewhere reading the values would stall the step
        inverse = torch.linalg.vector_norm(vectors, dim=-1).reciprocal_()
        if ordinary(inverse):
            return inverse
    return careful_inverse_lengths(vectors)


def careful_inverse_lengths(vectors: Tensor) -> Tensor:
    """:func:`inverse_lengths` without reading the values: in four passes instead of one."""
    largest = vectors.abs().amax(dim=-1, keepdim=True)
    scale = largest.masked_fill(largest == 0, 1)
    length = torch.linalg.vector_norm(vectors / scale, dim=-1) * scale.squeeze(-1)
    return torch.where(length == 0, 0, length.reciprocal())


def ordinary(inverse: Tensor) -> bool:
    """Whether the squares of all lengths neither overflow nor vanish."""
    if not inverse.numel():
        return True
    low, high = inverse.aminmax()
    return float(low) > 1 / LONG and float(high) < 1 / SHORT

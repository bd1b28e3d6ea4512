"""Few True values in large masks: where they are, and how many, read eight bytes at a time.

``nonzero`` and ``sum`` of a bool tensor cost more than the comparison that made it. Seen as int64, a mask has an
eighth of the elements, most of them 0; and 255 words of bytes 0 or 1 can be added without a carry between the bytes.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WORD = 8
_CARRY_FREE = 255


def marked(mask: Tensor) -> Tensor:
    """Flat positions of the True values, ascending.

    Args:
        mask: contiguous bool, a multiple of 8 elements.

    Returns:
        ``(True values,)`` int64.

    Example:
        >>> marked(torch.arange(16).view(2, 8) % 7 == 3)
        tensor([ 3, 10])
    """
    words = mask.view(-1).view(torch.int64)
    at = words.nonzero().squeeze(1)
    within = words.index_select(0, at).view(torch.uint8).nonzero().squeeze(1)
    return at.mul_(_WORD).index_select(0, within >> 3).add_(within.bitwise_and_(_WORD - 1))


def row_counts(mask: Tensor) -> Tensor:
    """True values of each row: ``(..., rows, columns)`` bool, columns a multiple of 8 -> ``(..., rows)`` int64.

    Example:
        >>> row_counts(torch.ones(2, 3, 8, dtype=torch.bool))
        tensor([[8, 8, 8],
                [8, 8, 8]])
    """
    words = mask.view(torch.int64)
    parts = _parts(words.shape[-1])
    sums = words.unflatten(-1, (parts, -1)).sum(dim=-1)  # (..., rows, parts), a count in each byte
    return sums.view(torch.uint8).sum(dim=-1)


def column_counts(mask: Tensor) -> Tensor:
    """True values of each column: ``(..., rows, columns)`` bool, columns a multiple of 8 -> ``(..., columns)`` int64.

    Example:
        >>> column_counts(torch.ones(2, 3, 8, dtype=torch.bool))[1]
        tensor([3, 3, 3, 3, 3, 3, 3, 3])
    """
    words = mask.view(torch.int64)
    parts = _parts(words.shape[-2])
    sums = words.unflatten(-2, (parts, -1)).sum(dim=-2)  # (..., parts, columns / 8)
    return sums.view(torch.uint8).sum(dim=-2)


def _parts(length: int) -> int:
    """The smallest number of equal parts of at most 255."""
    least = -(-length // _CARRY_FREE)
    return next(parts for parts in range(least, length + 1) if length % parts == 0)

"""Where the few True values of a large mask are.

``nonzero`` of a bool tensor costs more than the comparison that made it. Seen as int64, a mask has an eighth of the
elements, most of them 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WORD = 8


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

"""Proxies of any loss: initialisation, access, and a fixed length."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from polyanchor.functional import unit_rows

Init = Literal["fixed", "kaiming"]
_CHUNK = 2**22  # numbers drawn at a time


def draw_proxies(out: Tensor, init: Init, *, classes: int, first: int = 0) -> None:
    """Fill ``out`` with the initial proxies of some classes, independent of how the classes are sharded.

    Every process draws the proxies of all classes from torch's global CPU generator, a chunk at a time, and keeps its
    own: the generators of all processes end in the same state.

    Args:
        out: ``(c, K, D)`` floating, overwritten.
        init: ``"fixed"``: directions uniform, length 1; ``"kaiming"``: normal, of standard deviation sqrt(2 / (C K)).
        classes: C of all.
        first: class of ``out[0]``.

    Example:
        >>> whole, part = torch.empty(5, 2, 3), torch.empty(2, 2, 3)
        >>> _ = torch.manual_seed(0); draw_proxies(whole, "fixed", classes=5)
        >>> _ = torch.manual_seed(0); draw_proxies(part, "fixed", classes=5, first=3)
        >>> bool((part == whole[3:]).all())
        True
    """
    _, centres, dim = out.shape
    deviation = math.sqrt(2 / (classes * centres)) if init == "kaiming" else 1.0
    step = 16 * max(1, _CHUNK // (16 * centres * dim))  # torch draws 16 numbers at once: chunks equal one large draw
    for start in range(0, classes, step):
        chunk = torch.empty(min(step, classes - start), centres, dim, dtype=out.dtype, device="cpu").normal_(
            std=deviation
        )
        low, high = max(start, first), min(start + len(chunk), first + len(out))
        if low < high:
            kept = chunk[low - start : high - start]
            out[low - first : high - first] = kept if init == "kaiming" else unit_rows(kept)


def proxies_of(loss: nn.Module) -> Tensor | None:
    """``(C, K, D)`` proxies of a loss, a view of its parameter, or None if it has none."""
    proxies = getattr(loss, "proxies", None)
    return proxies if isinstance(proxies, Tensor) else None


def turn(proxies: Tensor, directions: Tensor) -> None:
    """Give ``(c, K, D)`` proxies other directions, in place; where a direction is 0 the proxy stays.

    Example:
        >>> proxies = torch.tensor([[[3.0, 4.0]], [[0.0, 1.0]]])
        >>> turn(proxies, torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]]))
        >>> proxies.tolist()
        [[[5.0, 0.0]], [[0.0, 1.0]]]
    """
    directions = directions.to(proxies.device, proxies.dtype)
    lengths = directions.norm(dim=-1, keepdim=True)
    proxies.copy_(torch.where(lengths > 0, directions * (proxies.norm(dim=-1, keepdim=True) / lengths), proxies))


@contextmanager
def fixed_lengths(loss: nn.Module) -> Iterator[None]:
    """Restore the length of every proxy at the end of the block.

    Only the direction of a proxy enters the losses; its length sets how far an optimizer's step turns it. Around
    ``optimizer.step()`` this keeps that rate constant throughout training. A loss without proxies is left alone.

    Example:
        >>> from polyanchor import MultiProxyAnchorLoss
        >>> loss = MultiProxyAnchorLoss(3, 4)
        >>> with fixed_lengths(loss), torch.no_grad():
        ...     _ = loss.proxies.mul_(5)
        >>> bool((loss.proxies.norm(dim=-1) - 1).abs().max() < 1e-6)
        True
    """
    before = proxies_of(loss)
    lengths = None if before is None else before.detach().norm(dim=-1, keepdim=True)
    yield
    after = proxies_of(loss)
    if after is not None and lengths is not None:
        with torch.no_grad():
            now = after.norm(dim=-1, keepdim=True)
            after.mul_(torch.where(now > 0, lengths / now, 1.0))

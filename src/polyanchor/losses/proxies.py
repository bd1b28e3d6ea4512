"""What can be said of the proxies of any loss: where they are, and how to hold their length."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def proxies_of(loss: nn.Module) -> Tensor | None:
    """``(C, K, D)`` proxies of a loss, a view of its parameter, or None if it has none.

    Args:
        loss: :class:`polyanchor.MultiProxyAnchorLoss`, or one from :func:`polyanchor.losses.pml.baseline`.

    Example:
        >>> from polyanchor import MultiProxyAnchorLoss
        >>> proxies_of(MultiProxyAnchorLoss(3, 4, proxies_per_class=2)).shape
        torch.Size([3, 2, 4])
        >>> proxies_of(nn.Identity()) is None
        True
    """
    proxies = getattr(loss, "proxies", None)
    return proxies if isinstance(proxies, Tensor) else None


@contextmanager
def fixed_lengths(loss: nn.Module) -> Iterator[None]:
    """Whatever the block does to the proxies, they leave it as long as they came.

    Only the direction of a proxy enters the losses; its length sets how far an optimizer's step turns it. Around
    ``optimizer.step()`` this keeps that rate the same throughout training. A loss without proxies is left alone.

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

"""The sweep as one differentiable step, embeddings of any length and proxies in, loss out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from polyanchor.kernels import gpu
from polyanchor.kernels.blocks import Part, inverse_lengths
from polyanchor.kernels.family import Counts, Family
from polyanchor.kernels.sweep import sweep

Twin = Callable[[Tensor, Tensor], Tensor]
"""Embeddings and proxies -> the same loss, differentiable as often as wanted."""


def fused_loss(
    embeddings: Tensor, proxies: Tensor, labels: Tensor, family: Family, *, twin: Twin | None = None
) -> Tensor:
    """Loss of the family, its gradients computed along with it.

    Args:
        embeddings: ``(B, D)`` float32 or float64, of any length.
        proxies: ``(C, K, D)`` of the same dtype, of any length.
        labels: ``(B,)`` int64 in ``[0, C)``.
        family: the loss.
        twin: used where a graph of the gradients is asked for (``create_graph=True``); None makes that an error.

    Returns:
        ``()`` loss.

    Raises:
        RuntimeError: in a second backward, if there is no twin.

    Example:
        >>> x = torch.eye(2, requires_grad=True)
        >>> fused_loss(x, torch.eye(2)[:, None], torch.tensor([0, 1]), Family()).backward()
        >>> x.grad.round(decimals=3)
        tensor([[ 0.0000, 15.3730],
                [15.3730,  0.0000]])
    """
    return _untraced()(embeddings, proxies, labels, family, twin)


def _untraced() -> Callable[..., Tensor]:
    """The step, kept from torch.compile: blocks by the hundred are not for tracing.

    Asked only where the compiler is loaded: loading it takes as long as importing torch.
    """
    if "torch._dynamo" not in sys.modules:
        return _Fused.apply
    global _kept_out
    if _kept_out is None:
        _kept_out = torch.compiler.disable(_Fused.apply)
    return _kept_out


_kept_out: Callable[..., Tensor] | None = None


class _Fused(torch.autograd.Function):
    """First order; the gradients are made in the forward pass and handed out by the first backward."""

    @staticmethod
    def forward(
        ctx: Any, embeddings: Tensor, proxies: Tensor, labels: Tensor, family: Family, twin: Twin | None
    ) -> Tensor:
        ctx.save_for_backward(embeddings, proxies, labels)
        ctx.family, ctx.twin = family, twin
        loss, ctx.made = _sweep_once(embeddings, proxies, labels, family, ctx.needs_input_grad[:2])
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        embeddings, proxies, labels = ctx.saved_tensors
        wants = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # create_graph=True
            if ctx.twin is not None:
                return *_twin_gradients(ctx.twin, embeddings, proxies, upstream, wants), None, None, None
            raise RuntimeError(
                "impl='fused' gives first-order gradients only, got a backward with create_graph=True; "
                "pass impl='eager' (or 'auto') to differentiate the gradient"
            )
        made, ctx.made = ctx.made, None
        if made is None:  # a second backward through a retained graph: the first one gave the arrays away
            made = _sweep_once(embeddings, proxies, labels, ctx.family, wants)[1]
        if upstream.device.type != "cpu" or upstream != 1:  # one more pass over the proxies, which is worth avoiding
            for gradient in made:
                if gradient is not None:
                    gradient.mul_(upstream)
        return *made, None, None, None


def _sweep_once(
    embeddings: Tensor, proxies: Tensor, labels: Tensor, family: Family, wants: tuple[bool, bool]
) -> tuple[Tensor, list[Tensor | None]]:
    """Loss, and gradients of embeddings and proxies as far as wanted."""
    inverse = inverse_lengths(embeddings)[:, None]
    units = embeddings * inverse
    part = Part(units, proxies.contiguous(), labels)
    counts = Counts.of(labels, len(proxies))
    swept = (gpu.sweep if units.device.type == "cuda" else sweep)(part, family, counts, wants=wants)
    to_embeddings = swept.to_units
    if to_embeddings is not None:
        along = (to_embeddings * units).sum(dim=1, keepdim=True)
        to_embeddings.addcmul_(units, along, value=-1).mul_(inverse)
    return swept.sums.loss(family, counts), [to_embeddings, swept.to_proxies]


def _twin_gradients(
    twin: Twin, embeddings: Tensor, proxies: Tensor, upstream: Tensor, wants: tuple[bool, bool]
) -> list[Tensor | None]:
    """Gradients that can be differentiated again."""
    inputs = [value for value, wanted in zip((embeddings, proxies), wants, strict=True) if wanted]
    found = iter(torch.autograd.grad(twin(embeddings, proxies), inputs, upstream, create_graph=True))
    return [next(found) if wanted else None for wanted in wants]

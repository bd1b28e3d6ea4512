"""The fused loss: one differentiable step from embeddings and proxies of any length to the loss, on CPU and GPU."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch.autograd import forward_ad

from polyanchor._errors import InputError
from polyanchor._kernels.blocks import Part, careful_inverse_lengths, inverse_lengths
from polyanchor._kernels.options import Counts, LogSums, LossOptions
from polyanchor._kernels.pooling import LOG2_E
from polyanchor._kernels.sweep import Pull, SweepResult, own_cosines, sweep

BLOCK_BYTES = 256 * 2**20  # of scores at a time, on a GPU
Twin = Callable[[Tensor, Tensor], Tensor]
"""Embeddings and proxies -> the same loss, differentiable as often as wanted."""
_kept_out: Callable[..., Tensor] | None = None


def fused_loss(
    embeddings: Tensor, proxies: Tensor, labels: Tensor, options: LossOptions, *, twin: Twin | None = None
) -> Tensor:
    """The loss, computed together with exactly the gradients that autograd will ask for.

    Args:
        embeddings: ``(B, D)`` float32 or float64, of any length.
        proxies: ``(C, K, D)`` of the same dtype, of any length.
        labels: ``(B,)`` int64 in ``[0, C)``.
        options: the loss.
        twin: answers a backward with ``create_graph=True``; None makes that an error.

    Raises:
        RuntimeError: in a second-order backward without a twin.
        ValueError: inside a function transform, see :func:`transformed`.
    """
    refuse_transforms(embeddings, proxies)
    return _untraced()(embeddings, proxies, labels, options, twin)


def why_not(device: torch.device, dtype: torch.dtype, options: LossOptions) -> str | None:
    """Why the fused loss cannot take such tensors, or None if it can."""
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return f"none is written for device type {device.type!r}"
    if importlib.util.find_spec("triton") is None:
        return "on a GPU it needs the package triton, which is not installed"
    if dtype != torch.float32:
        return f"on a GPU it is written for float32 sums, got {dtype}"
    if options.steep:
        return f"on a GPU its exponentials would overflow with alpha {options.alpha} and delta {options.delta}"
    return None


def transformed(*values: Tensor) -> bool:
    """Whether the call is inside ``torch.func.grad``, ``vmap`` or the like, or a value has a forward-mode tangent.

    A transform cannot trace gradients that are made in the forward pass, in place.
    """
    return _functorch.maybe_current_level() is not None or any(
        forward_ad.unpack_dual(value).tangent is not None for value in values
    )


def refuse_transforms(*values: Tensor, instead: str = "pass impl='eager' (or 'auto')") -> None:
    """Require a call that is not :func:`transformed`."""
    if transformed(*values):
        raise InputError(
            "the fused loss gives gradients to backward() and torch.autograd.grad alone, got a call inside torch.func "
            f"(grad, vjp, jvp, vmap, ...) or with forward-mode tangents; {instead} there"
        )


def wanted(*values: Tensor) -> tuple[bool, ...]:
    """Whether autograd may ask for each gradient; ``ctx.needs_input_grad`` ignores ``torch.no_grad()``."""
    return tuple(torch.is_grad_enabled() and value.requires_grad for value in values)


def handed_out(made: Sequence[Tensor | None], upstream: Tensor) -> list[Tensor | None]:
    """Gradients times the upstream one; in place, and skipped for a 1 on the CPU, to save a pass over the proxies."""
    # a Jacobian asks for several at once
    if _functorch.is_batchedtensor(upstream) or _functorch.is_legacy_batchedtensor(upstream):
        return [gradient if gradient is None else gradient * upstream for gradient in made]
    if upstream.device.type != "cpu" or upstream != 1:
        return [gradient if gradient is None else gradient.mul_(upstream) for gradient in made]
    return list(made)


def _untraced() -> Callable[..., Tensor]:
    """The step, hidden from torch.compile, which should not trace hundreds of blocks.

    Loading the compiler takes as long as importing torch, so nothing is hidden until it is loaded.
    """
    if "torch._dynamo" not in sys.modules:
        return _step
    global _kept_out
    if _kept_out is None:
        _kept_out = torch.compiler.disable(_step)
    return _kept_out


def _step(embeddings: Tensor, proxies: Tensor, labels: Tensor, options: LossOptions, twin: Twin | None) -> Tensor:
    wants = wanted(embeddings, proxies)
    if any(wants):
        loss: Tensor = _Fused.apply(embeddings, proxies, labels, options, twin)
        return loss
    return _sweep_once(embeddings, proxies, labels, options, wants)[0]


class _Fused(torch.autograd.Function):
    """First order; the gradients are computed in the forward pass and handed out by the first backward."""

    @staticmethod
    def forward(
        ctx: Any, embeddings: Tensor, proxies: Tensor, labels: Tensor, options: LossOptions, twin: Twin | None
    ) -> Tensor:
        ctx.save_for_backward(embeddings, proxies, labels)
        ctx.options, ctx.twin = options, twin
        loss, ctx.made = _sweep_once(embeddings, proxies, labels, options, ctx.needs_input_grad[:2])
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
        if made is None:  # a second backward through a retained graph: the first one handed the arrays out
            made = _sweep_once(embeddings, proxies, labels, ctx.options, wants)[1]
        return *handed_out(made, upstream), None, None, None


def _sweep_once(
    embeddings: Tensor, proxies: Tensor, labels: Tensor, options: LossOptions, wants: tuple[bool, ...]
) -> tuple[Tensor, list[Tensor | None]]:
    """Loss, and the wanted gradients of embeddings and proxies."""
    inverse = inverse_lengths(embeddings)[:, None]
    units = embeddings * inverse
    part = Part(units, proxies.contiguous(), labels)
    counts = Counts.of(labels, len(proxies))
    result = (gpu_sweep if units.device.type == "cuda" else sweep)(part, options, counts, wants=wants)
    to_embeddings = result.to_units
    if to_embeddings is not None:
        along = (to_embeddings * units).sum(dim=1, keepdim=True)
        to_embeddings.addcmul_(units, along, value=-1).mul_(inverse)
    return result.sums.loss(options, counts), [to_embeddings, result.to_proxies]


def _twin_gradients(
    twin: Twin, embeddings: Tensor, proxies: Tensor, upstream: Tensor, wants: tuple[bool, ...]
) -> list[Tensor | None]:
    """Gradients that can be differentiated again."""
    inputs = [value for value, wanted in zip((embeddings, proxies), wants, strict=True) if wanted]
    gradients = iter(torch.autograd.grad(twin(embeddings, proxies), inputs, upstream, create_graph=True))
    return [next(gradients) if wanted else None for wanted in wants]


def gpu_sweep(
    part: Part, options: LossOptions, counts: Counts, *, wants: tuple[bool, ...] = (True, True)
) -> SweepResult:
    """Loss and gradients of a whole batch on a GPU, as :func:`polyanchor._kernels.sweep.sweep` on a CPU."""
    from polyanchor._kernels.triton import push_block

    rows, (classes, centres, _) = len(part.units), part.proxies.shape
    items = torch.arange(rows, device=part.units.device)
    pull = Pull(own_cosines(part, items, part.labels), items, part.labels, (rows, classes), options)
    inverse = careful_inverse_lengths(part.proxies)
    push = part.units.new_zeros(classes if options.push_by_class else rows)
    factors, along = torch.zeros_like(part.units[:, 0]), torch.empty_like(inverse)
    step = max(1, BLOCK_BYTES // (4 * centres * rows))
    buffer = part.units.new_empty(min(step, classes), centres, rows)
    to_units = torch.zeros_like(part.units) if wants[0] else None
    to_proxies = torch.empty_like(part.proxies) if wants[1] else None
    weights = pull.weights(pull.sums, counts)
    unit = math.exp(-options.alpha * options.delta)  # the 1 of the logarithm

    def push_of(first: int, *, collect: bool, spread: bool) -> Tensor:
        block = slice(first, first + step)
        proxies = part.proxies[block]
        scores = buffer[: len(proxies)]
        torch.mm(proxies.flatten(0, 1), part.units.T, out=scores.view(-1, rows))
        push_block[(len(proxies),)](
            *(scores, inverse[block], part.labels - first, weights, factors),
            *(push[block] if options.push_by_class else push, along[block], rows),
            *(options.alpha * LOG2_E, LOG2_E / options.gamma, unit, options.alpha / counts.classes),
            K=centres,
            KP=1 << (centres - 1).bit_length(),
            BT=max(16, min(256, 1 << (rows - 1).bit_length())),
            POOLING=options.pooling,
            BY_CLASS=options.push_by_class,
            COLLECT=collect,
            SPREAD=spread,
        )
        return scores.view(-1, rows)

    def spread(first: int, *, collect: bool) -> None:
        gradient, block = push_of(first, collect=collect, spread=True), slice(first, first + step)
        proxies = part.proxies[block]
        if to_units is not None:
            to_units.addmm_(gradient.T, proxies.flatten(0, 1))
        if to_proxies is not None:
            torch.mm(gradient, part.units, out=to_proxies[block].flatten(0, 1))
            to_proxies[block].addcmul_(proxies * inverse[block, :, None], along[block, :, None], value=-1)

    starts = range(0, classes, step)
    at_once = options.push_by_class and any(wants)
    for first in starts:
        if at_once:
            spread(first, collect=True)
        else:
            push_of(first, collect=True, spread=False)
    if any(wants) and not at_once:
        factors = options.alpha / counts.items / (unit + push)
        for first in starts:
            spread(first, collect=False)
    return SweepResult(LogSums(pull.sums, push.log() + options.alpha * options.delta), to_units, to_proxies)

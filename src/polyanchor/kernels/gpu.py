"""The sweep on a GPU: large blocks, one Triton kernel between the products, nothing read back to the host."""

from __future__ import annotations

import importlib.util
import math

import torch
from torch import Tensor

from polyanchor.kernels.blocks import Part, careful_inverse_lengths
from polyanchor.kernels.family import Counts, Family, LogSums
from polyanchor.kernels.pooling import LOG2_E
from polyanchor.kernels.pull import Pull, own_cosines
from polyanchor.kernels.sweep import Swept

BLOCK_BYTES = 256 * 2**20


def why_not(device: torch.device, dtype: torch.dtype, family: Family) -> str | None:
    """Why there is no fused loss for such tensors, or None if there is.

    Example:
        >>> why_not(torch.device("cpu"), torch.float64, Family()) is None
        True
        >>> why_not(torch.device("mps"), torch.float32, Family())
        "none is written for device type 'mps'"
    """
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return f"none is written for device type {device.type!r}"
    if importlib.util.find_spec("triton") is None:
        return "on a GPU it needs the package triton, which is not installed"
    if dtype != torch.float32:
        return f"on a GPU it is written for float32 sums, got {dtype}"
    if family.steep:
        return f"on a GPU its exponentials would overflow with alpha {family.alpha} and delta {family.delta}"
    return None


def sweep(part: Part, family: Family, counts: Counts, *, wants: tuple[bool, ...] = (True, True)) -> Swept:
    """Loss and gradients of a whole batch; arguments and outcome as :func:`polyanchor.kernels.sweep.sweep`."""
    from polyanchor.kernels.triton_push import push_block

    rows, (classes, centres, _) = len(part.units), part.proxies.shape
    items = torch.arange(rows, device=part.units.device)
    pull = Pull(own_cosines(part, items, part.labels), items, part.labels, (rows, classes), family)
    inverse = careful_inverse_lengths(part.proxies)
    push = part.units.new_zeros(classes if family.push_by_class else rows)
    factors, along = torch.zeros_like(part.units[:, 0]), torch.empty_like(inverse)
    step = max(1, BLOCK_BYTES // (4 * centres * rows))
    buffer = part.units.new_empty(min(step, classes), centres, rows)
    to_units = torch.zeros_like(part.units) if wants[0] else None
    to_proxies = torch.empty_like(part.proxies) if wants[1] else None
    weights = pull.weights(pull.sums, counts)
    one = math.exp(-family.alpha * family.delta)

    def look(first: int, *, collect: bool, spread: bool) -> Tensor:
        here = slice(first, first + step)
        proxies = part.proxies[here]
        scores = buffer[: len(proxies)]
        torch.mm(proxies.flatten(0, 1), part.units.T, out=scores.view(-1, rows))
        push_block[(len(proxies),)](
            *(scores, inverse[here], part.labels - first, weights, factors),
            *(push[here] if family.push_by_class else push, along[here], rows),
            *(family.alpha * LOG2_E, LOG2_E / family.gamma, one, family.alpha / counts.classes),
            K=centres,
            KP=1 << (centres - 1).bit_length(),
            BT=max(16, min(256, 1 << (rows - 1).bit_length())),
            POOLING=family.pooling,
            BY_CLASS=family.push_by_class,
            COLLECT=collect,
            SPREAD=spread,
        )
        return scores.view(-1, rows)

    def spread(first: int, *, collect: bool) -> None:
        gradient, here = look(first, collect=collect, spread=True), slice(first, first + step)
        proxies = part.proxies[here]
        if to_units is not None:
            to_units.addmm_(gradient.T, proxies.flatten(0, 1))
        if to_proxies is not None:
            torch.mm(gradient, part.units, out=to_proxies[here].flatten(0, 1))
            to_proxies[here].addcmul_(proxies * inverse[here, :, None], along[here, :, None], value=-1)

    starts = range(0, classes, step)
    at_once = family.push_by_class and any(wants)
    for first in starts:
        if at_once:
            spread(first, collect=True)
        else:
            look(first, collect=True, spread=False)
    if any(wants) and not at_once:
        factors = family.alpha / counts.items / (one + push)
        for first in starts:
            spread(first, collect=False)
    return Swept(LogSums(pull.sums, push.log() + family.alpha * family.delta), to_units, to_proxies)

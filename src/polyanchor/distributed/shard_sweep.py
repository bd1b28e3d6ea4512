"""Loss and gradients where a rank holds some of the classes and sees all rows.

Class-wise logarithms are complete on the rank that holds the class: only their sum is sent. An item-wise logarithm runs
over the classes of all ranks: between the two directions of the sweep each rank sends its sum for every row, B or 2 B
numbers. No rank looks at a proxy of another, and none reads its own proxies twice for the sake of the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.device_mesh import DeviceMesh

from polyanchor.distributed.exchange import stack_of_all, sum_of_all
from polyanchor.kernels.autograd import handed_out, wanted
from polyanchor.kernels.blocks import Part, inverse_lengths
from polyanchor.kernels.family import Counts, Family, LogSums
from polyanchor.kernels.sweep import half_swept


@dataclass(frozen=True)
class Piece:
    """Classes of this rank that stand for the same number of classes each.

    Attributes:
        classes: slice of the proxies held here.
        labels: ``(B,)`` int64, counted from the piece's first class; outside ``[0, c)`` for items of other classes.
        weight: how many classes each stands for; above 1 no item may be of one of them.
    """

    classes: slice
    labels: Tensor
    weight: float = 1.0


def shard_loss(
    embeddings: Tensor,
    proxies: Tensor,
    pieces: Sequence[Piece],
    family: Family,
    counts: Counts,
    mesh: DeviceMesh,
) -> Tensor:
    """The loss of all ranks together, on every rank.

    Args:
        embeddings: ``(B, D)`` of all ranks, of any length; receives this rank's summand of the gradient times the
            number of ranks, as data-parallel training takes the mean over ranks where this loss needs the sum.
        proxies: ``(c, K, D)`` of the classes held here; receives its whole gradient.
        pieces: all of them, cut.
        family: the loss.
        counts: of all ranks together.
        mesh: the ranks.
    """
    wants = wanted(embeddings, proxies)
    if any(wants):
        loss: Tensor = _ShardLoss.apply(embeddings, proxies, pieces, family, counts, mesh)
        return loss
    return _loss_and_gradients(embeddings, proxies, pieces, family, counts, mesh, wants)[0]


class _ShardLoss(torch.autograd.Function):
    """First order; the gradients are made in the forward pass and handed out by the backward."""

    @staticmethod
    def forward(
        ctx: Any,
        embeddings: Tensor,
        proxies: Tensor,
        pieces: Sequence[Piece],
        family: Family,
        counts: Counts,
        mesh: DeviceMesh,
    ) -> Tensor:
        loss, *ctx.made = _loss_and_gradients(
            embeddings, proxies, pieces, family, counts, mesh, ctx.needs_input_grad[:2]
        )
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.made is None:
            raise RuntimeError("the class-sharded loss gives its gradients once, got a second backward; call it again")
        made, ctx.made = ctx.made, None
        return *handed_out(made, upstream), None, None, None, None


def _loss_and_gradients(
    embeddings: Tensor,
    proxies: Tensor,
    pieces: Sequence[Piece],
    family: Family,
    counts: Counts,
    mesh: DeviceMesh,
    wants: tuple[bool, ...],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss, and in the dtypes of the inputs their gradients as far as wanted."""
    wide = torch.promote_types(torch.promote_types(embeddings.dtype, proxies.dtype), torch.float32)
    rows = embeddings.to(wide)
    inverse = inverse_lengths(rows)[:, None]
    units = rows * inverse
    loss, to_units, to_proxies = _sweep(units, proxies.to(wide), pieces, family, counts, mesh, wants)
    if to_units is not None:
        along = (to_units * units).sum(dim=1, keepdim=True)
        to_units = to_units.addcmul_(units, along, value=-1).mul_(inverse * mesh.size()).to(embeddings.dtype)
    return loss, to_units, None if to_proxies is None else to_proxies.to(proxies.dtype)


def _sweep(
    units: Tensor,
    proxies: Tensor,
    pieces: Sequence[Piece],
    family: Family,
    counts: Counts,
    mesh: DeviceMesh,
    wants: tuple[bool, ...],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss, this rank's summand of the units' gradient, its proxies' gradient."""
    sweeps, sizes = [], []
    for piece in pieces:
        part = Part(units, proxies[piece.classes].contiguous(), piece.labels)
        size = Counts(counts.items / piece.weight, counts.classes / piece.weight, counts.present)
        sweeps.append(half_swept(part, family, size, alone=True, wants=wants))
        sizes.append(size)
    found = [work.sums() for work in sweeps]

    # What the items' logarithms run over, of all ranks together: (B,) each, the same on every rank.
    shared: dict[str, Tensor] = {}
    if not family.pull_by_class:
        shared["pull"] = torch.stack([sums.pull for sums in found]).logsumexp(0)
    if not family.push_by_class:
        weighted = [sums.push + math.log(piece.weight) for sums, piece in zip(found, pieces, strict=True)]
        shared["push"] = torch.stack(weighted).logsumexp(0)
    if shared:
        joined = stack_of_all(torch.stack(list(shared.values())), mesh).logsumexp(0)
        shared = dict(zip(shared, joined, strict=True))

    none = units.new_full((1,), -math.inf)
    loss = replace(LogSums(none, none), **shared).loss(family, counts)
    if len(shared) < 2:
        by_class = [replace(sums, **dict.fromkeys(shared, none)) for sums in found]
        shares = [sums.loss(family, size) for sums, size in zip(by_class, sizes, strict=True)]
        loss = loss + sum_of_all(torch.stack(shares).sum(), mesh)

    done = [work.finish(replace(sums, **shared)) for work, sums in zip(sweeps, found, strict=True)]
    to_units = [swept.to_units for swept in done if swept.to_units is not None]
    to_proxies = [swept.to_proxies for swept in done if swept.to_proxies is not None]
    return (
        loss,
        sum(to_units[1:], to_units[0]) if to_units else None,
        (to_proxies[0] if len(to_proxies) == 1 else torch.cat(to_proxies)) if to_proxies else None,
    )

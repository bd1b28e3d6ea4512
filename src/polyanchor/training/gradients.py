"""Size and clipping of gradients of which each rank holds a part: as one process does it with all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from polyanchor.distributed.exchange import stack_of_all
from polyanchor.distributed.sharded_loss import ShardedMultiProxyAnchorLoss


def parted(optimizer: Optimizer, loss: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The gradients that all ranks have alike, and this rank's parts of the others: sharded or sampled proxies."""
    found = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    alike = [gradient for gradient in found if not isinstance(gradient, DTensor)]
    parts = [gradient.to_local() for gradient in found if isinstance(gradient, DTensor)]
    sample = loss.sample if isinstance(loss, ShardedMultiProxyAnchorLoss) else None
    if sample is not None and sample.proxies.grad is not None:
        parts.append(sample.proxies.grad)
    return alike, parts


def total_norm(alike: Sequence[Tensor], parts: Sequence[Tensor], mesh: DeviceMesh | None, kind: float) -> Tensor:
    """Norm of all gradients together, ``()``, the same on every rank; one message if there are parts.

    Args:
        alike: see :func:`parted`.
        parts: likewise; all ranks have some or none has.
        mesh: the ranks that hold them.
        kind: of the norm: 2, or infinity for the largest magnitude.
    """
    norms = [get_total_norm(alike, norm_type=kind)] if alike else []
    if parts:
        assert mesh is not None  # parts of something
        norms += stack_of_all(get_total_norm(parts, norm_type=kind), mesh).unbind()
    return torch.linalg.vector_norm(torch.stack(norms), kind) if norms else torch.zeros(())


@torch.no_grad()
def clip(optimizer: Optimizer, loss: nn.Module, mesh: DeviceMesh | None, how: str | None, bound: float) -> None:
    """Clip by ``"value"`` or by ``"norm"``, as torch's functions of these names do; None: not."""
    alike, parts = parted(optimizer, loss)
    if how == "value":
        for gradient in (*alike, *parts):
            gradient.clamp_(-bound, bound)
    elif how == "norm":
        factor = (bound / (total_norm(alike, parts, mesh, 2.0) + 1e-6)).clamp(max=1.0)
        for gradient in (*alike, *parts):
            gradient.mul_(factor)

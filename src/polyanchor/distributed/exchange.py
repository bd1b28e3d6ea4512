"""What the ranks tell each other in a step: rows of a batch, sums. The messages are DTensor's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard


def rows_of_all(rows: Tensor, mesh: DeviceMesh) -> Tensor:
    """The rows of all ranks, in order of rank; ranks may hold different numbers of them, and none.

    The gradient of a row is the sum of what all ranks found for it, sent to its owner alone.

    Args:
        rows: ``(b, ...)`` of this rank.
        mesh: of one dimension.

    Returns:
        ``(B, ...)``, the same on every rank.
    """
    counts = stack_of_all(torch.tensor(len(rows), device=rows.device), mesh).tolist()
    longest = max(counts)
    padded = F.pad(rows, (0, 0) * (rows.ndim - 1) + (0, longest - len(rows)))
    shard = DTensor.from_local(padded, mesh, [Shard(0)], run_check=False)
    everyone = shard.redistribute(placements=[Replicate()]).to_local(grad_placements=[Partial()])
    if min(counts) == longest:
        return everyone
    return torch.cat([everyone[rank * longest :][:count] for rank, count in enumerate(counts)])


def stack_of_all(value: Tensor, mesh: DeviceMesh) -> Tensor:
    """``(...)`` of each rank -> ``(R, ...)``; one message, no gradient."""
    return DTensor.from_local(value.detach()[None], mesh, [Shard(0)], run_check=False).full_tensor()


def sum_of_all(value: Tensor, mesh: DeviceMesh) -> Tensor:
    """Sum over the ranks; the gradient of the sum is that of each rank's summand."""
    return DTensor.from_local(value, mesh, [Partial()], run_check=False).full_tensor()

"""What the ranks tell each other in a step: rows of a batch, sums. The messages are DTensor's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard


def counts_of_all(count: int, mesh: DeviceMesh) -> list[int]:
    """A number of each rank, in order of rank; one message."""
    return stack_of_all(torch.tensor(count, device=mesh.device_type), mesh).tolist()


def rows_of_all(rows: Tensor, mesh: DeviceMesh, counts: Sequence[int], *, each_finds_all: bool = False) -> Tensor:
    """The rows of all ranks, in order of rank; ranks may hold different numbers of them, and none.

    Args:
        rows: ``(b, ...)`` of this rank.
        mesh: of one dimension.
        counts: rows of each rank, see :func:`counts_of_all`.
        each_finds_all: the gradient of a row is that which its owner finds, without a message back, as every rank finds
            the same; by default it is the sum of what all ranks find for it, sent to its owner alone.

    Returns:
        ``(B, ...)``, the same on every rank.
    """
    longest = max(counts)
    padded = F.pad(rows, (0, 0) * (rows.ndim - 1) + (0, longest - len(rows)))
    shard = DTensor.from_local(padded, mesh, [Shard(0)], run_check=False)
    back = Replicate() if each_finds_all else Partial()
    everyone = shard.redistribute(placements=[Replicate()]).to_local(grad_placements=[back])
    if min(counts) == longest:
        return everyone
    return torch.cat([everyone[rank * longest :][:count] for rank, count in enumerate(counts)])


def stack_of_all(value: Tensor, mesh: DeviceMesh) -> Tensor:
    """``(...)`` of each rank -> ``(R, ...)``; one message, no gradient."""
    return DTensor.from_local(value.detach()[None], mesh, [Shard(0)], run_check=False).full_tensor()


def sum_of_all(value: Tensor, mesh: DeviceMesh) -> Tensor:
    """Sum over the ranks; the gradient of the sum is that of each rank's summand."""
    return DTensor.from_local(value, mesh, [Partial()], run_check=False).full_tensor()


def all_ranks() -> DeviceMesh:
    """The ranks of the process group, on the kind of device that it talks for.

    Raises:
        RuntimeError: there is no process group.
    """
    if not dist.is_initialized():
        raise RuntimeError(
            "a loss on several ranks needs a process group: call torch.distributed.init_process_group() first, "
            "and start the script with torchrun"
        )
    here = torch.accelerator.current_accelerator() if "nccl" in dist.get_backend() else None
    return init_device_mesh("cpu" if here is None else here.type, (dist.get_world_size(),))

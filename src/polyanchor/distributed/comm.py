"""Communication between the ranks of a process group: gathered rows and sums in a step, objects beside it.

``torch.distributed.tensor`` takes more than a second to import, so it is imported where a message is sent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

Value = TypeVar("Value")
# rank 0 may measure for hours while the others wait; a rank that has ended is noticed at once
_CONTROL_TIMEOUT = timedelta(days=1)


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run; by default it is alone.

    Attributes:
        rank: of this process.
        size: number of processes.
        mesh: all ranks, for the messages of a step; None without a process group.
        control: all ranks, for messages between CPUs.
    """

    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None
    control: DeviceMesh | None = None

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes files and announces."""
        return self.rank == 0

    def run_on_rank0(self, work: Callable[[], Value]) -> Value:
        """Call ``work()`` on rank 0; every rank returns its value, or raises its error."""
        if self.control is None or self.size == 1:
            return work()
        outcome: list[Any] = [None]
        if self.first:
            try:
                outcome = [(True, work())]
            except Exception as error:  # of any kind: the other ranks wait for an outcome
                outcome = [(False, error)]
        dist.broadcast_object_list(outcome, src=0, group=self.control.get_group())
        succeeded, value = outcome[0]
        if not succeeded:
            raise value
        return value

    def all_gather_object(self, value: Value) -> list[Value]:
        """A picklable value of each rank, in order of rank."""
        if self.control is None or self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control.get_group())
        return values

    def all_max(self, *values: float) -> list[float]:
        """The maximum of each value over the ranks; one small message."""
        if self.control is None or self.size == 1:
            return list(values)
        largest = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=self.control.get_group())
        return largest.tolist()

    def rows(self, rows: Tensor) -> Tensor:
        """``(n, ...)`` of this rank, on the CPU; n may be 0 -> ``(N, ...)`` of all ranks, in order of rank."""
        if self.control is None or self.size == 1:
            return rows
        return all_gather_rows(rows, self.control, counts_of_all(len(rows), self.control))

    def part(self, count: int) -> range:
        """The contiguous part of ``range(count)`` that is this rank's; parts are as even as possible."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)


@contextmanager
def ranks_of_group() -> Iterator[Ranks]:
    """All ranks of the default process group."""
    mesh, rank, size = all_ranks(), dist.get_rank(), dist.get_world_size()
    # a group of its own: that of the steps may be NCCL's, which sends no tensors of the CPU
    group = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=_CONTROL_TIMEOUT))
    yield Ranks(rank, size, mesh, DeviceMesh.from_group(group, "cpu"))


def all_ranks() -> DeviceMesh:
    """The ranks of the default process group, on the device type of its backend.

    Raises:
        RuntimeError: there is no process group.
    """
    if not dist.is_initialized():
        raise RuntimeError(
            "a loss on several ranks needs a process group: call torch.distributed.init_process_group() first, "
            "and start the script with torchrun"
        )
    accelerator = torch.accelerator.current_accelerator() if "nccl" in dist.get_backend() else None
    return init_device_mesh("cpu" if accelerator is None else accelerator.type, (dist.get_world_size(),))


def counts_of_all(count: int, mesh: DeviceMesh) -> list[int]:
    """A number of each rank, in order of rank; one message."""
    return all_gather_stack(torch.tensor(count, device=mesh.device_type), mesh).tolist()


def all_gather_rows(
    rows: Tensor, mesh: DeviceMesh, counts: Sequence[int], *, replicated_gradient: bool = False
) -> Tensor:
    """The rows of all ranks, in order of rank; a rank may have any number of them, or none.

    Args:
        rows: ``(b, ...)`` of this rank.
        mesh: of one dimension.
        counts: rows of each rank, see :func:`counts_of_all`.
        replicated_gradient: all ranks compute the same gradient, so each keeps that of its own rows and no message is
            sent back; by default the gradients of all ranks are summed and sent to the owner of the row.

    Returns:
        ``(B, ...)``, the same on every rank.
    """
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

    longest = max(counts)
    padded = F.pad(rows, (0, 0) * (rows.ndim - 1) + (0, longest - len(rows)))
    shard = DTensor.from_local(padded, mesh, [Shard(0)], run_check=False)
    gradient = Replicate() if replicated_gradient else Partial()
    gathered = shard.redistribute(placements=[Replicate()]).to_local(grad_placements=[gradient])
    if min(counts) == longest:
        return gathered
    return torch.cat([gathered[rank * longest :][:count] for rank, count in enumerate(counts)])


def all_gather_stack(value: Tensor, mesh: DeviceMesh) -> Tensor:
    """``(...)`` of each rank -> ``(R, ...)``; one message, no gradient."""
    from torch.distributed.tensor import DTensor, Shard

    return DTensor.from_local(value.detach()[None], mesh, [Shard(0)], run_check=False).full_tensor()


def all_reduce_sum(value: Tensor, mesh: DeviceMesh) -> Tensor:
    """The sum over the ranks; its gradient is passed on to each rank's summand."""
    from torch.distributed.tensor import DTensor, Partial

    return DTensor.from_local(value, mesh, [Partial()], run_check=False).full_tensor()


def hard_exit(code: int = 0) -> NoReturn:
    """End this process, which was one of several, without Python's own teardown.

    Gloo's threads outlive ``destroy_process_group`` where a device mesh still refers to the group. One that frees a
    tensor while the interpreter is torn down ends a finished process with SIGABRT, now and then and on a busy machine;
    torchrun then ends the others, and reports a failure.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

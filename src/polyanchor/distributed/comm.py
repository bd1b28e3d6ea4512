"""What the ranks tell each other in a step: rows of a batch, sums. The messages are DTensor's."""

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
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard


def counts_of_all(count: int, mesh: DeviceMesh) -> list[int]:
    """A number of each rank, in order of rank; one message."""
    return all_gather_stack(torch.tensor(count, device=mesh.device_type), mesh).tolist()


def all_gather_rows(rows: Tensor, mesh: DeviceMesh, counts: Sequence[int], *, each_finds_all: bool = False) -> Tensor:
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


def all_gather_stack(value: Tensor, mesh: DeviceMesh) -> Tensor:
    """``(...)`` of each rank -> ``(R, ...)``; one message, no gradient."""
    return DTensor.from_local(value.detach()[None], mesh, [Shard(0)], run_check=False).full_tensor()


def all_reduce_sum(value: Tensor, mesh: DeviceMesh) -> Tensor:
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


Value = TypeVar("Value")
# one may measure for hours while the others wait; one that is gone is noticed at once
_PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run; alone by default.

    Attributes:
        rank: number of this one.
        size: how many there are.
        mesh: all of them, for the messages of a step; None without a process group.
        control: the same on the CPU, for everything else.
    """

    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None
    control: DeviceMesh | None = None

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.rank == 0

    def run_on_rank0(self, work: Callable[[], Value]) -> Value:
        """What ``work()`` gives on rank 0, on every rank; what it raises there is raised on every rank."""
        if self.control is None or self.size == 1:
            return work()
        said: list[Any] = [None]
        if self.first:
            try:
                said = [(True, work())]
            except Exception as error:  # whatever it is: the other ranks wait for an answer
                said = [(False, error)]
        dist.broadcast_object_list(said, src=0, group=self.control.get_group())
        done, value = said[0]
        if not done:
            raise value
        return value

    def all_gather_object(self, value: Value) -> list[Value]:
        """A picklable value of each rank, in order of rank."""
        if self.control is None or self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.control.get_group())
        return found

    def all_max(self, *values: float) -> list[float]:
        """The largest of each value over the ranks; one small message."""
        if self.control is None or self.size == 1:
            return list(values)
        largest = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=self.control.get_group())
        return largest.tolist()

    def rows(self, rows: Tensor) -> Tensor:
        """``(n, ...)`` on the CPU, of each rank its own, n may be 0 -> ``(N, ...)`` of all, in order of rank."""
        if self.control is None or self.size == 1:
            return rows
        return all_gather_rows(rows, self.control, counts_of_all(len(rows), self.control))

    def part(self, count: int) -> range:
        """Which of so many things are this rank's: a run of them, as even as possible."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)


def hard_exit(code: int = 0) -> NoReturn:
    """End this process, which has been one of several, with what it has said and without Python's own teardown.

    Gloo's threads outlive ``destroy_process_group`` where a device mesh still refers to the group. One that frees a
    tensor while the interpreter is being taken down ends a process whose work is done with SIGABRT, now and then and
    on a busy machine; torchrun then ends the others, and reports a failure.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextmanager
def ranks_of_group() -> Iterator[Ranks]:
    """All ranks of the process group that there is."""
    mesh, rank, size = all_ranks(), dist.get_rank(), dist.get_world_size()
    # a group of its own: the steps' may be NCCL's, which knows no CPU
    group = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=_PATIENCE))
    yield Ranks(rank, size, mesh, DeviceMesh.from_group(group, "cpu"))

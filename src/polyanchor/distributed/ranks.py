"""Who takes part in a run, and what they tell each other beside the steps: decisions, results, failures."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from polyanchor.distributed.exchange import all_ranks, counts_of_all, rows_of_all

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

    def on_first(self, work: Callable[[], Value]) -> Value:
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

    def of_all(self, value: Value) -> list[Value]:
        """A picklable value of each rank, in order of rank."""
        if self.control is None or self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.control.get_group())
        return found

    def most(self, *values: float) -> list[float]:
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
        return rows_of_all(rows, self.control, counts_of_all(len(rows), self.control))

    def part(self, count: int) -> range:
        """Which of so many things are this rank's: a run of them, as even as possible."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)


def leave(code: int = 0) -> NoReturn:
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

"""Steps that several ranks make together, beside steps that one of them makes alone, timed in the same rounds."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.common import child
from polyanchor.distributed.comm import hard_exit


def started(question: str, count: int, *arguments: object) -> list[Any]:
    """What ``python -m benchmarks.QUESTION --one arguments`` gives to :func:`answer` on each of so many ranks."""
    os.environ["GLOO_SOCKET_IFNAME"], os.environ["OMP_NUM_THREADS"] = "lo", "1"
    words = "--standalone", "--nproc-per-node", count, "-m", f"benchmarks.{question}", "--one"
    found: list[Any] = child("torch.distributed.run", *words, *arguments)
    return found


def answer(work: Callable[[], Any]) -> None:
    """Do a rank's part in a process group, let rank 0 print what all found, and end."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, work())
    if dist.get_rank() == 0:
        print(json.dumps(everyone), flush=True)
    dist.barrier()  # a rank that leaves while another still talks to it can end badly
    dist.destroy_process_group()
    hard_exit()


def in_rounds(
    steps: Mapping[str, Callable[[], None]], names: Sequence[str], rounds: int, *, two_threads: str
) -> dict[str, list[float]]:
    """Seconds of the steps that this rank makes, on the wall and of its processor: ``"NAME, wall"``, ``"NAME, own"``.

    Args:
        steps: those of this rank.
        names: of the steps of all ranks, in the order of a round; every other round goes the other way.
        rounds: after one that is not counted.
        two_threads: the step that has two threads; the others have one.
    """
    found: dict[str, list[float]] = {f"{name}, {clock}": [] for name in steps for clock in ("wall", "own")}
    for turn in range(-1, rounds):
        for name in names if turn % 2 else names[::-1]:
            dist.barrier()
            if name not in steps:
                continue
            torch.set_num_threads(2 if name == two_threads else 1)
            wall, own = time.perf_counter(), time.process_time()
            steps[name]()
            if turn >= 0:
                found[f"{name}, wall"].append(time.perf_counter() - wall)
                found[f"{name}, own"].append(time.process_time() - own)
    return found

"""Taking part in a run of several processes, whoever started them: torchrun, SLURM's srun, or this package."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist

from polyanchor._errors import InputError
from polyanchor._files import JobFailedError
from polyanchor.distributed.ranks import Ranks, ranks_of_group
from polyanchor.training.config import Config
from polyanchor.training.device import device_of

_GONE = re.compile(r"Connection (closed|reset)|connection was (closed|reset)|Broken pipe|remote process exited|EPIPE")


class LostRankError(JobFailedError):
    """A message could not be exchanged since another process of the run has ended; that one knows why."""


def processes(config: Config) -> int:
    """How many processes a run has: one for each device."""
    return config.run.devices * config.run.nodes


def is_rank() -> bool:
    """Whether this process is one of a run's, rather than the one that starts them."""
    return dist.is_initialized() or _started() is not None


@contextmanager
def joined(config: Config) -> Iterator[Ranks]:
    """Take part in the run, as one process of those that the configuration asks for.

    Raises:
        LostRankError: another process has ended while this one waited for it.
        ValueError: there are more or fewer processes than ``run.devices`` x ``run.nodes``.
    """
    size, device = processes(config), device_of(config)
    if size == 1 and not config.sharded:
        yield Ranks()
        return
    ours = not dist.is_initialized()
    if ours:
        _join(config, size, device)
    try:
        if dist.get_world_size() != size:
            raise InputError(_other_count(config, dist.get_world_size()))
        with ranks_of_group() as ranks, _lost_named():
            yield ranks
    except Exception as error:  # marked, and raised again
        if ours and size > 1:
            error.heard = _first_to_fail()  # type: ignore[attr-defined]  # a mark on any error
        raise
    finally:
        if ours:
            dist.destroy_process_group()


def _join(config: Config, size: int, device: torch.device) -> None:
    started = _started()
    if size == 1:
        dist.init_process_group(backend_of(device), store=cast(Any, dist).HashStore(), rank=0, world_size=1)
        return
    if started is None:
        raise InputError(
            f"run.devices = {config.run.devices} and run.nodes = {config.run.nodes} ask for {size} processes, got one; "
            "start them with polyanchor train (on one node), torchrun or srun, or set both to 1 for this command"
        )
    if started.size != size:
        raise InputError(_other_count(config, started.size))
    if device.type == "cuda":
        torch.cuda.set_device(started.rank % config.run.devices)
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # torchrun keeps the store
        place = "env://"
    else:
        place = f"tcp://{started.address}:{started.port}"
    dist.init_process_group(backend_of(device), init_method=place, rank=started.rank, world_size=started.size)


def _other_count(config: Config, found: int) -> str:
    return (
        f"run.devices x run.nodes must be the number of processes, got {config.run.devices} x {config.run.nodes} "
        f"and {found} processes"
    )


@contextmanager
def one_voice() -> Iterator[bool]:
    """Whether this process speaks for the run; of those that torchrun or srun started, the first one.

    An error that leaves the block has ``heard`` set to False where another process says it.
    """
    started = _started()
    first = started is None or started.rank == 0
    try:
        yield first
    except Exception as error:  # marked, and raised again
        if not hasattr(error, "heard"):
            error.heard = first  # type: ignore[attr-defined]  # a mark on any error
        raise


def _first_to_fail() -> bool:
    """Whether no other process of the run has failed before; what follows in others they need not say."""
    try:
        return bool(dist.distributed_c10d._get_default_store().add("failed", 1) == 1)
    except RuntimeError:  # the store's own process has gone, with a word
        return False


@dataclass(frozen=True)
class Started:
    """What a launcher says."""

    rank: int
    size: int
    address: str
    port: int


def _started(environment: Mapping[str, str] = os.environ) -> Started | None:
    """What torchrun, or srun, has told this process; None if nobody started it with others."""
    if {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= set(environment):
        said = Started(
            int(environment["RANK"]),
            int(environment["WORLD_SIZE"]),
            environment["MASTER_ADDR"],
            int(environment["MASTER_PORT"]),
        )
        return said if said.size > 1 else None
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in environment:
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment  # takes seconds to import

        nodes = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_NODELIST", "127.0.0.1"))
        return Started(
            int(environment["SLURM_PROCID"]),
            int(environment["SLURM_STEP_NUM_TASKS"]),
            environment.get("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes)),
            # jobs that share a node need different ports
            int(environment.get("MASTER_PORT", 10_000 + int(environment.get("SLURM_JOB_ID", "0")) % 50_000)),
        )
    return None


@contextmanager
def _lost_named() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not _GONE.search(str(error)):
            raise
        raise LostRankError("another process of this run has ended, and this one waited for it") from error


def backend_of(device: torch.device) -> str:
    """Of the process group."""
    return "nccl" if device.type == "cuda" else "gloo"

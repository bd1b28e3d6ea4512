"""The processes of a run on the devices of this machine: started, listened to, ended."""

from __future__ import annotations

import os
import pickle
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.multiprocessing

from polyanchor._errors import InputError
from polyanchor._io import JobFailedError, no_room
from polyanchor.config.builders import device_of
from polyanchor.config.schema import Config
from polyanchor.distributed.comm import Ranks, hard_exit, ranks_of_group
from polyanchor.training.stopping import Interrupted, StopRequest

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
def process_group(config: Config) -> Iterator[Ranks]:
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
def rank_zero_speaks() -> Iterator[bool]:
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


_GRACE = 10.0  # seconds that the others have to end by themselves once one has failed


def on_devices(
    config: Config,
    work: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    announce: Callable[[str], None],
    stop: StopRequest,
    folder: Path,
) -> Any:
    """``work(**arguments, announce=..., stop=...)`` on a process for each device of this machine; what rank 0 returns.

    Args:
        config: of the run.
        work: a function that a fresh process can import.
        arguments: what can be pickled.
        announce: is told what rank 0 announces.
        stop: a request is passed on to all processes.
        folder: of the run, for messages.

    Raises:
        Exception: what the first process to fail raised; it alone, and the others are ended.
        JobFailedError: a process was killed.
    """
    if config.run.nodes > 1:
        raise InputError(
            f"run.nodes = {config.run.nodes} needs a process for each device on each node; start them with torchrun or "
            "srun"
        )
    count = config.run.devices
    context = torch.multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    threads = config.run.threads or max(1, torch.get_num_threads() // count)
    with tempfile.TemporaryDirectory() as meeting, stop.listening():
        with _sigint_blocked():
            started = cast(Any, torch.multiprocessing).start_processes(
                _rank,
                (count, meeting, threads, config, [sender for _, sender in pipes], work, dict(arguments)),
                nprocs=count,
                join=False,
            )
        for _, sender in pipes:
            sender.close()
        watch = _Watch([receiver for receiver, _ in pipes], announce)
        try:
            _wait(started, watch, stop)
        except BaseException:
            for process in started.processes:
                process.kill()
            raise
    ended = {rank: process.exitcode for rank, process in enumerate(started.processes)}
    return watch.outcome({r: c for r, c in ended.items() if started.processes[r].pid not in watch.ended_by_us}, folder)


def _wait(started: Any, watch: _Watch, stop: StopRequest) -> None:
    """Until all processes have ended."""
    told, deadline = False, float("inf")
    while any(process.is_alive() for process in started.processes):
        watch.listen(0.1)
        if stop.made and not told:
            told = True
            for process in started.processes:
                if process.is_alive():
                    os.kill(process.pid, signal.SIGINT)
        if deadline == float("inf") and any(process.exitcode for process in started.processes):
            deadline = time.monotonic() + _GRACE
        if time.monotonic() > deadline:  # they wait for one that is gone, and do not notice it
            for process in started.processes:
                if process.is_alive():
                    watch.ended_by_us.add(process.pid)
                    process.kill()
    watch.listen(0)


class _Watch:
    """What the processes say, as it comes."""

    def __init__(self, receivers: Sequence[Connection], announce: Callable[[str], None]) -> None:
        self.receivers, self.announce = list(receivers), announce
        self.errors: list[Exception] = []
        self.value: Any = None
        self.ended_by_us: set[int] = set()

    def listen(self, seconds: float) -> None:
        """Take what there is, waiting for it at most so long."""
        while self.receivers and (ready := wait(self.receivers, seconds)):
            for receiver in ready:
                assert isinstance(receiver, Connection)
                try:
                    kind, content = pickle.loads(receiver.recv_bytes())
                except EOFError:
                    self.receivers.remove(receiver)
                    continue
                if kind == "said":
                    self.announce(content)
                elif kind == "done":
                    self.value = self.value or content
                else:
                    error, trace = content
                    error.__cause__ = JobFailedError(f"in a process of the run:\n{trace}")
                    self.errors.append(error)
            seconds = 0
        if not self.receivers:
            time.sleep(min(seconds, 0.05))

    def outcome(self, codes: Mapping[int, int], folder: Path) -> Any:
        """The value, or the error that came first, leaving out those of processes that only lost another."""
        real = [error for error in self.errors if not isinstance(error, LostRankError)]
        if real:
            raise real[0]
        killed = [(rank, -code) for rank, code in codes.items() if code < 0]
        if killed:
            rank, number = killed[0]
            name = signal.Signals(number).name
            why = "; often memory had run out" if name == "SIGKILL" else ", see what it wrote above"
            raise JobFailedError(
                f"process {rank} of the run was killed ({name}){why}. Go on with: polyanchor train --resume {folder}"
            )
        if self.errors:
            raise self.errors[0]
        if any(codes.values()):
            raise JobFailedError(
                f"the processes of the run ended with the codes {list(codes.values())} and no word; "
                f"go on with: polyanchor train --resume {folder}"
            )
        return self.value


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Processes begun here do not hear Ctrl-C until they ask to; then it comes by way of the one that started them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _rank(
    rank: int,
    count: int,
    meeting: str,
    threads: int,
    config: Config,
    senders: Sequence[Connection],
    work: Callable[..., Any],
    arguments: Mapping[str, Any],
) -> None:
    """One of the processes."""
    _settle(rank, threads, device_of(config))
    for other, its in enumerate(senders):
        if other != rank:
            its.close()
    sender = senders[rank]

    def say(kind: str, content: object) -> None:
        sender.send_bytes(pickle.dumps((kind, content)))  # by value: what torch would share ends with this process

    def announce(line: str) -> None:
        if rank == 0:
            say("said", line)

    try:
        dist.init_process_group(
            backend_of(device_of(config)),
            init_method=f"file://{meeting}/ranks",
            rank=rank,
            world_size=count,
        )
        value = work(**arguments, announce=announce, stop=StopRequest())
        say("done", value if rank == 0 else None)
    except Interrupted as error:
        say("failed", (error, ""))
    except Exception as error:  # told to the starting process, which raises it
        say("failed", (_portable(error), traceback.format_exc()))
        hard_exit(1)
    dist.barrier()  # who leaves while another still talks to it makes that one fail
    dist.destroy_process_group()
    hard_exit()


def _settle(rank: int, threads: int, device: torch.device) -> None:
    if hasattr(os, "setpgrp"):  # not on Windows
        os.setpgrp()  # the terminal's Ctrl-C goes to the starting process alone
    torch.set_num_threads(threads)
    if sys.platform.startswith("linux"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine; its name may not lead to it
    if device.type == "cuda":
        torch.cuda.set_device(rank)


def _portable(error: Exception) -> Exception:
    """An error that another process can read: itself, or its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # pickling another library's error may fail in any way
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


_WORKER = re.compile(r"DataLoader worker \(pid")
_MEMORY = re.compile(r"can't allocate memory|not enough memory", re.IGNORECASE)


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """A full disk, a worker that was killed and memory that ran out become a message that says how to go on.

    Args:
        folder: of the run.

    Raises:
        JobFailedError: one of them happened.
    """
    try:
        yield
    except Exception as error:  # from any library beneath; one without a known reason goes on as it came
        reason = _reason(error, folder)
        if reason is None:
            raise
        raise _failed(reason, folder) from error


@contextmanager
def late_deaths_explained(folder: Path) -> Iterator[None]:
    """For the whole of a run: a second worker's death interrupts the cleaning up after the first, wherever that is."""
    try:
        yield
    except RuntimeError as error:
        if not _WORKER.search(str(error)):
            raise
        raise _failed(_worker_gone(str(error)), folder) from error


def _failed(reason: str, folder: Path) -> JobFailedError:
    return JobFailedError(f"{reason}; then go on with: polyanchor train --resume {folder}")


def _worker_gone(text: str) -> str:
    return (
        f"a worker process that reads the images is gone ({text.rstrip('. ')}). Often memory had run out: give the "
        "run less to hold, for example --workers 0 beside --resume"
    )


def _broke_off(error: Exception) -> bool:
    """Whether it was met while a batch was received from another process, which then was killed in the middle of it."""
    if not isinstance(error, (OSError, EOFError)):
        return False
    modules = (str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(module.startswith(("multiprocessing.", "torch.multiprocessing.")) for module in modules)


def _reason(error: Exception, folder: Path) -> str | None:
    text = " ".join(str(error).split())
    if isinstance(error, JobFailedError):
        return text
    room = no_room(error)
    if room is not None:
        name = getattr(error, "filename", None) or f"a file in {folder / 'logs'}"
        return f"{name} could not be written: {room}. Make room on that disk"
    if _WORKER.search(text) or _broke_off(error):
        return _worker_gone(text)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or _MEMORY.search(text):
        first = text.split(". ")[0]
        return f"memory ran out ({first}). Make room, or begin a new run with a batches.micro_batch_size that fits"
    return None

"""The processes of a run: starting them, joining their group, ending them, and turning failures into one message.

``torch.distributed.launcher`` is not used: it kills the ranks 30 s after Ctrl-C, where a run finishes its step and
writes a checkpoint first, and it reports the error of a rank as a ``ChildFailedError`` with a traceback.
"""

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
from polyanchor.types import Announce

_GRACE = 10.0  # seconds in which the other ranks may end by themselves once one has failed
_CONNECTION_LOST = re.compile(
    r"Connection (closed|reset)|connection was (closed|reset)|Broken pipe|remote process exited|EPIPE"
)
_WORKER_DIED = re.compile(r"DataLoader worker \(pid")
_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory", re.IGNORECASE)


class LostRankError(JobFailedError):
    """Communication failed because another rank exited; see that rank's error."""


def processes(config: Config) -> int:
    """Number of processes of a run: one per device."""
    return config.run.devices * config.run.nodes


def is_rank() -> bool:
    """Whether this process is a rank of a run, rather than the one that starts the ranks."""
    return dist.is_initialized() or _launched() is not None


def on_devices(
    config: Config,
    work: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    announce: Announce,
    stop: StopRequest,
    folder: Path,
) -> Any:
    """Call ``work(**arguments, announce=..., stop=...)`` in a process per device of this machine; rank 0's value.

    Args:
        config: of the run.
        work: a function that a fresh process can import.
        arguments: must be picklable.
        announce: receives the lines that rank 0 announces.
        stop: a request is passed on to all processes.
        folder: of the run, for messages.

    Raises:
        Exception: the error of the first process to fail; the others are ended.
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
    with tempfile.TemporaryDirectory() as rendezvous, stop.listening():
        with _sigint_blocked():
            started = cast(Any, torch.multiprocessing).start_processes(
                _rank,
                (count, rendezvous, threads, config, [sender for _, sender in pipes], work, dict(arguments)),
                nprocs=count,
                join=False,
            )
        for _, sender in pipes:
            sender.close()
        supervisor = _Supervisor(started.processes, [receiver for receiver, _ in pipes], announce)
        try:
            supervisor.join(stop)
        except BaseException:  # Ctrl-C too: no rank outlives this process
            for process in started.processes:
                process.kill()
            raise
    return supervisor.outcome(folder)


class _Supervisor:
    """Forwards the messages of the ranks, and ends those that wait for a rank that is gone."""

    def __init__(self, processes: Sequence[Any], receivers: Sequence[Connection], announce: Announce) -> None:
        self.processes, self.receivers, self.announce = processes, list(receivers), announce
        self.errors: list[Exception] = []
        self.value: Any = None
        self.ended: set[int] = set()  # ranks that were killed here

    def join(self, stop: StopRequest) -> None:
        """Wait until all processes have ended."""
        forwarded, deadline = False, float("inf")
        while alive := [(rank, process) for rank, process in enumerate(self.processes) if process.is_alive()]:
            self._receive(0.1)
            if stop.made and not forwarded:
                forwarded = True
                for _, process in alive:
                    os.kill(process.pid, signal.SIGINT)
            if deadline == float("inf") and any(process.exitcode for process in self.processes):
                deadline = time.monotonic() + _GRACE
            if time.monotonic() > deadline:
                for rank, process in alive:
                    if process.is_alive():
                        self.ended.add(rank)
                        process.kill()
        self._receive(0)

    def _receive(self, seconds: float) -> None:
        """Take all pending messages, waiting up to ``seconds`` for the first."""
        while self.receivers and (ready := wait(self.receivers, seconds)):
            for receiver in ready:
                assert isinstance(receiver, Connection)
                try:
                    kind, content = pickle.loads(receiver.recv_bytes())
                except EOFError:
                    self.receivers.remove(receiver)
                    continue
                if kind == "line":
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

    def outcome(self, folder: Path) -> Any:
        """Rank 0's value, or the first error; that of a rank which only lost another comes last."""
        causes = [error for error in self.errors if not isinstance(error, LostRankError)]
        if causes:
            raise causes[0]
        codes = {rank: process.exitcode for rank, process in enumerate(self.processes) if rank not in self.ended}
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
                f"the processes of the run ended with the codes {list(codes.values())} and without an error; "
                f"go on with: polyanchor train --resume {folder}"
            )
        return self.value


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Processes started here ignore Ctrl-C, which the starting process forwards, until they set a handler."""
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
    rendezvous: str,
    threads: int,
    config: Config,
    senders: Sequence[Connection],
    work: Callable[..., Any],
    arguments: Mapping[str, Any],
) -> None:
    """One of the processes."""
    device = device_of(config)
    _set_up(rank, threads, device)
    for other, sender in enumerate(senders):
        if other != rank:
            sender.close()

    def send(kind: str, content: object) -> None:
        # by value: torch would share memory, which ends with this process
        senders[rank].send_bytes(pickle.dumps((kind, content)))

    def announce(line: str) -> None:
        if rank == 0:
            send("line", line)

    try:
        dist.init_process_group(
            backend_of(device), init_method=f"file://{rendezvous}/ranks", rank=rank, world_size=count
        )
        value = work(**arguments, announce=announce, stop=StopRequest())
        send("done", value if rank == 0 else None)
    except Interrupted as error:
        send("failed", (error, ""))
    except Exception as error:  # the starting process raises it
        send("failed", (_portable(error), traceback.format_exc()))
        hard_exit(1)
    dist.barrier()  # a rank that leaves while another still sends to it makes that one fail
    dist.destroy_process_group()
    hard_exit()


def _set_up(rank: int, threads: int, device: torch.device) -> None:
    if hasattr(os, "setpgrp"):  # not on Windows
        os.setpgrp()  # the terminal's Ctrl-C goes to the starting process alone
    torch.set_num_threads(threads)
    if sys.platform.startswith("linux"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine, whose host name may not resolve to it
    if device.type == "cuda":
        torch.cuda.set_device(rank)


def _portable(error: Exception) -> Exception:
    """The error itself if it can be pickled, else its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # pickling another library's error may fail in any way
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


@contextmanager
def process_group(config: Config) -> Iterator[Ranks]:
    """Join the process group of the run that the configuration asks for.

    Raises:
        LostRankError: another rank exited while this one waited for it.
        ValueError: there are more or fewer processes than ``run.devices`` x ``run.nodes``.
    """
    size, device = processes(config), device_of(config)
    if size == 1 and not config.sharded:
        yield Ranks()
        return
    own = not dist.is_initialized()
    if own:
        _join(config, size, device)
    try:
        if dist.get_world_size() != size:
            raise InputError(_other_count(config, dist.get_world_size()))
        with ranks_of_group() as ranks:
            yield ranks
    except Exception as error:  # of any kind: it is told apart here, and raised
        lost = isinstance(error, RuntimeError) and _CONNECTION_LOST.search(str(error)) is not None
        raised = LostRankError("another process of this run has ended, and this one waited for it") if lost else error
        if own and size > 1:
            raised.heard = _first_to_fail()  # type: ignore[attr-defined]  # a mark on any error
        if lost:
            raise raised from error
        raise
    finally:
        if own:
            dist.destroy_process_group()


def _join(config: Config, size: int, device: torch.device) -> None:
    launched = _launched()
    if size == 1:
        dist.init_process_group(backend_of(device), store=cast(Any, dist).HashStore(), rank=0, world_size=1)
        return
    if launched is None:
        raise InputError(
            f"run.devices = {config.run.devices} and run.nodes = {config.run.nodes} ask for {size} processes, got one; "
            "start them with polyanchor train (on one node), torchrun or srun, or set both to 1 for this command"
        )
    if launched.size != size:
        raise InputError(_other_count(config, launched.size))
    if device.type == "cuda":
        torch.cuda.set_device(launched.rank % config.run.devices)
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # torchrun keeps the store
        init_method = "env://"
    else:
        init_method = f"tcp://{launched.address}:{launched.port}"
    dist.init_process_group(backend_of(device), init_method, rank=launched.rank, world_size=launched.size)


def _other_count(config: Config, count: int) -> str:
    return (
        f"run.devices x run.nodes must be the number of processes, got {config.run.devices} x {config.run.nodes} "
        f"and {count} processes"
    )


def backend_of(device: torch.device) -> str:
    """The backend of a process group on such devices."""
    return "nccl" if device.type == "cuda" else "gloo"


@dataclass(frozen=True)
class Launched:
    """What a launcher has put into the environment of this process."""

    rank: int
    size: int
    address: str
    port: int


def _launched(environment: Mapping[str, str] = os.environ) -> Launched | None:
    """The environment of torchrun or srun; None if no launcher started this process with others."""
    if {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= set(environment):
        launched = Launched(
            int(environment["RANK"]),
            int(environment["WORLD_SIZE"]),
            environment["MASTER_ADDR"],
            int(environment["MASTER_PORT"]),
        )
        return launched if launched.size > 1 else None
    # Lightning's SLURMEnvironment takes a batch script with SLURM_NTASKS for one of its tasks
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in environment:
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment  # takes seconds to import

        nodes = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_NODELIST", "127.0.0.1"))
        return Launched(
            int(environment["SLURM_PROCID"]),
            int(environment["SLURM_STEP_NUM_TASKS"]),
            environment.get("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes)),
            # jobs that share a node need different ports
            int(environment.get("MASTER_PORT", 10_000 + int(environment.get("SLURM_JOB_ID", "0")) % 50_000)),
        )
    return None


@contextmanager
def rank_zero_speaks() -> Iterator[bool]:
    """Whether this process speaks for the run: of those that torchrun or srun started, rank 0 does.

    An error that leaves the block has ``heard`` set to False if another process reports it.
    """
    launched = _launched()
    first = launched is None or launched.rank == 0
    try:
        yield first
    except Exception as error:  # marked and raised as it is
        if not hasattr(error, "heard"):
            error.heard = first  # type: ignore[attr-defined]  # a mark on any error
        raise


def _first_to_fail() -> bool:
    """Whether this is the first rank that fails; the others need not report what follows from it."""
    try:
        return bool(dist.distributed_c10d._get_default_store().add("failed", 1) == 1)
    except RuntimeError:  # the process that kept the store has exited, and reported why
        return False


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn a full disk, a killed worker and exhausted memory into a message that says how to go on.

    Args:
        folder: of the run.

    Raises:
        JobFailedError: one of them happened.
    """
    try:
        yield
    except Exception as error:  # from any library; one without a known reason passes unchanged
        reason = _reason(error, folder)
        if reason is None:
            raise
        raise _failed(reason, folder) from error


@contextmanager
def late_deaths_explained(folder: Path) -> Iterator[None]:
    """Explain a second worker's death, whose signal may interrupt the cleaning up after the first anywhere."""
    try:
        yield
    except RuntimeError as error:
        if not _WORKER_DIED.search(str(error)):
            raise
        raise _failed(_worker_gone(str(error)), folder) from error


def _failed(reason: str, folder: Path) -> JobFailedError:
    return JobFailedError(f"{reason}; then go on with: polyanchor train --resume {folder}")


def _reason(error: Exception, folder: Path) -> str | None:
    text = " ".join(str(error).split())
    if isinstance(error, JobFailedError):
        return text
    room = no_room(error)
    if room is not None:
        name = getattr(error, "filename", None) or f"a file in {folder / 'logs'}"
        return f"{name} could not be written: {room}. Make room on that disk"
    if _WORKER_DIED.search(text) or _sender_died(error):
        return _worker_gone(text)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or _NO_MEMORY.search(text):
        first = text.split(". ")[0]
        return f"memory ran out ({first}). Make room, or begin a new run with a batches.micro_batch_size that fits"
    return None


def _sender_died(error: Exception) -> bool:
    """Whether it was raised while receiving a batch from a worker, which was killed while sending it."""
    if not isinstance(error, (OSError, EOFError)):
        return False
    modules = (str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(module.startswith(("multiprocessing.", "torch.multiprocessing.")) for module in modules)


def _worker_gone(text: str) -> str:
    return (
        f"a worker process that reads the images is gone ({text.rstrip('. ')}). Often memory had run out: reduce the "
        "memory of the run, for example with --workers 0 beside --resume"
    )

"""The processes of a run on the devices of this machine: started, listened to, ended."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.multiprocessing

from polyanchor._errors import InputError
from polyanchor._files import JobFailedError
from polyanchor.distributed.ranks import leave
from polyanchor.training.config import Config
from polyanchor.training.device import device_of
from polyanchor.training.joining import LostRankError, backend_of
from polyanchor.training.stopping import Interrupted, StopRequest

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
        with _deaf_start():
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
def _deaf_start() -> Iterator[None]:
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
        leave(1)
    dist.barrier()  # who leaves while another still talks to it makes that one fail
    dist.destroy_process_group()
    leave()


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

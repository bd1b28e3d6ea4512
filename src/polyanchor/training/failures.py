"""What can happen to a long run from outside, and how it is said."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from polyanchor._files import JobFailedError, no_room

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
        "run less to hold, for example --set data.workers=0 beside --resume"
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
        return f"memory ran out ({first}). Make room, or begin a new run with a batches.piece that fits"
    return None

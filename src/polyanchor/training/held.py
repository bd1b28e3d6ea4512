"""A folder in which one process at a time works."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from polyanchor._errors import InputError
from polyanchor._files import replacing

_LOCK, _HOLDER = "lock", "lock.json"  # two files, as who tries to lock one may empty it


def is_lock(name: str) -> bool:
    """Whether a file of this name belongs to a lock: it says nothing about what the folder holds."""
    return name in (_LOCK, _HOLDER)


def was_held(folder: Path) -> bool:
    """Whether somebody works in a folder, or did."""
    return (folder / _LOCK).exists()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder while the block runs; the system lets go for one that is killed.

    Args:
        folder: the folder; it must exist. Reading it needs no lock.

    Raises:
        ValueError: another process works in it; the message says which.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, held(Path(folder)):
        ...     sorted(file.name for file in Path(folder).iterdir())
        ['lock', 'lock.json']
    """
    lock, holder = FileLock(folder / _LOCK), folder / _HOLDER
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            f"{folder} is in use by {_who(holder)}; wait until it has ended, stop it, or take another folder"
        ) from error
    try:
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        said = {"pid": os.getpid(), "host": platform.node(), "since": since}
        with replacing(holder) as unfinished:
            unfinished.write_text(json.dumps(said), encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _who(holder: Path) -> str:
    with suppress(OSError, ValueError, KeyError):  # it is just being written
        said = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {said['pid']} on {said['host']}, since {said['since']}"
    return "another process"

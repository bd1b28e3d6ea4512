"""Files that are there whole or not at all, and what is said where there is no room for them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class JobFailedError(Exception):
    """The job failed, and neither its input nor the program is wrong: a full disk, a process that was killed.

    The message says what happened and how to go on. The command line shows it and ends with exit code 1.
    """


def user_path(path: str | Path) -> Path:
    """A path as a shell would read it: ``~`` at its beginning is the home folder.

    Example:
        >>> user_path("photos/a.jpg").as_posix()
        'photos/a.jpg'
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser fails where there is no such user


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write under another name; the file takes its own once it is whole and has reached the disk.

    Killed or failing at any moment, what was there before is still there. The folder must exist.

    Args:
        path: the file; the block gets the name to write to.

    Raises:
        JobFailedError: there is no room for it; what was written of it is removed again.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with replacing(path) as unfinished:
        ...     _ = unfinished.write_text("whole")
        >>> path.read_text()
        'whole'
    """
    unfinished = path.with_name(f"{path.name}.writing")
    try:
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())  # a power failure may undo the renaming, and then the file before is there
        unfinished.replace(path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        reason = no_room(error)
        if reason is None:
            raise
        before = "; the file that was there before is whole" if path.exists() else ""
        raise JobFailedError(f"{path} could not be written: {reason}{before}. Make room on that disk") from error


def no_room(error: BaseException | None) -> str | None:
    """What the system says about room, if that is at the bottom of an error; None if it is not.

    torch and safetensors raise errors of their own for it, with the system's behind them or in their text.

    Example:
        >>> no_room(OSError(errno.ENOSPC, "No space left on device"))
        'No space left on device'
        >>> no_room(ValueError("something else")) is None
        True
    """
    while error is not None:
        said = re.search(r"\(os error (\d+)\)", str(error))
        number = error.errno if isinstance(error, OSError) else int(said[1]) if said else None
        if number in _NO_ROOM:
            return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None

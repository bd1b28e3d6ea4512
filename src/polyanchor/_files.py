"""Files that are there whole or not at all, and what is said where there is no room for them."""

from __future__ import annotations

import errno
import os
import platform
import re
import secrets
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class JobFailedError(Exception):
    """The job failed, and neither its input nor the program is wrong: a full disk, a process that was killed.

    The message says what happened and how to go on. The command line shows it and ends with exit code 1.
    """


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as a shell would read it: ``~`` at its beginning is the home folder.

    Example:
        >>> user_path("photos/a.jpg").as_posix()
        'photos/a.jpg'
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser fails where there is no such user


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write under another name; the file takes its own once it is whole and has reached the disk.

    Killed or failing at any moment, what was there before is still there. Several writers of one file do not disturb
    each other: the last one's is left. What killed writers of the same file left behind is removed. The file's mode is
    that of the file before, or follows the umask, whatever the library that writes it thinks. The folder must exist.

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
    unfinished = unfinished_name(path)
    try:
        unfinished.open("xb").close()
        mode = (path if path.is_file() else unfinished).stat().st_mode & 0o777
        yield unfinished
        unfinished.chmod(mode)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())  # a power failure may undo the renaming, and then the file before is there
        unfinished.replace(path)
        remove_unfinished(path.parent, path.name)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        reason = no_room(error)
        if reason is None:
            raise
        before = "; the file that was there before is whole" if path.exists() else ""
        raise JobFailedError(f"{path} could not be written: {reason}{before}. Make room on that disk") from error


_HOST = f"{zlib.crc32(os.fsencode(platform.node())):08x}"
_UNFINISHED = re.compile(r"(?P<name>.*)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.writing", re.DOTALL)
_LONGEST = 200  # bytes of the own name in that of an unfinished file; systems allow 255 in all


def unfinished_name(path: Path) -> Path:
    """Beside ``path``, a name that no other writer uses: host, process and a random number are in it.

    Example:
        >>> unfinished_name(Path("runs/hits.png")).name.split(".")[0::3]
        ['hits', 'writing']
    """
    return path.with_name(f"{_shortened(path.name)}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.writing")


def is_unfinished(name: str) -> bool:
    """Whether a file of this name is one that is being written, or was when its writer was killed.

    Example:
        >>> is_unfinished(unfinished_name(Path("a.txt")).name), is_unfinished("a.txt")
        (True, False)
    """
    return _UNFINISHED.fullmatch(name) is not None


def remove_unfinished(folder: Path, name: str = "") -> None:
    """Remove what writers of this machine that are gone left in a folder, of one file or of all."""
    for entry in os.scandir(folder):
        found = _UNFINISHED.fullmatch(entry.name)
        if found is None or found["host"] != _HOST or (name and found["name"] != _shortened(name)):
            continue
        if not _is_running(int(found["pid"])):
            with suppress(OSError):  # somebody else may be faster
                Path(entry.path).unlink()


def _shortened(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_LONGEST].decode("utf-8", "ignore").encode())


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


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

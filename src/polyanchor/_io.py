"""Files that are there whole or not at all, and what is said where there is no room for them."""

from __future__ import annotations

import csv
import errno
import os
import platform
import re
import secrets
import struct
import tokenize
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

from polyanchor import _optional as _extras
from polyanchor._errors import InputError

if TYPE_CHECKING:  # the command line reads paths before it needs torch
    from torch import Tensor

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


# What the readers say of content that they did not expect: sizes beyond an integer, nesting without end among it.
_DAMAGE: tuple[type[Exception], ...] = (
    csv.Error,
    zlib.error,
    struct.error,
    BadZipFile,
    EOFError,
    OverflowError,
    RecursionError,
    SyntaxError,  # numpy, of the heading of an array; so is the next
    tokenize.TokenError,
)


@contextmanager
def reading(name: str, *more: type[Exception]) -> Iterator[None]:
    """Turn what goes wrong with a file's content into an ``InputError`` that begins with ``name``.

    Args:
        name: the file or the source, as the user knows it.
        more: errors of the package at work that mean damage too.

    Raises:
        InputError: the content is damaged, of another format, or cannot be used.
        OSError: the system could not read the file; its own message names the file.

    Example:
        >>> with reading("list.csv"):
        ...     int("x")
        Traceback (most recent call last):
        ...
        polyanchor._errors.InputError: list.csv: invalid literal for int() with base 10: 'x'
    """
    try:
        yield
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(
            f"{name}: expected UTF-8 text, got the byte {byte:#04x} at {error.start}; save it as UTF-8"
        ) from error
    except OSError as error:
        # Without the system's number it is a package's word for damaged content (pyarrow's); EINVAL comes from a
        # damaged archive that sends its reader to a place before the file's beginning.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise InputError(_damaged(name, error)) from error
    except (ValueError, TypeError) as error:  # a wrong dtype in a file is bad input, not a bug of the caller
        if isinstance(error, ValueError) and str(error).startswith(name):
            raise
        raise InputError(f"{name}: {error}") from error
    except _DAMAGE + more as error:
        raise InputError(_damaged(name, error)) from error


def text_lines(file: Path) -> list[str]:
    """The lines of a UTF-8 text file."""
    with reading(str(file)):
        return file.read_text(encoding="utf-8-sig").splitlines()


def _damaged(name: str, error: Exception) -> str:
    return f"{name}: damaged or of another format: {str(error) or type(error).__name__}"


def what_was_refused(error: Exception) -> str:
    """What torch's restricted reader met, without its advice to load the file all the same.

    Example:
        >>> what_was_refused(ValueError("Unsupported global: GLOBAL numpy.dtype was not an allowed global"))
        ': numpy.dtype'
    """
    named = re.search(r"GLOBAL (\S+)", str(error))
    first = (str(error).splitlines() or ["no content"])[0]
    return f": {named[1] if named else first}"


_CHECKSUM = "crc32"  # three times as fast as a cryptographic one, and this is about damage, not about deceit


def save_tensors(tensors: Mapping[str, Tensor], path: Path, said: Mapping[str, str] | None = None) -> None:
    """A ``.safetensors`` file, replaced in one step; the checksum is in its header, so it is never that of another.

    Args:
        tensors: name -> any.
        path: the file.
        said: texts to put beside them.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    said = dict(said or {})
    said[_CHECKSUM] = checksum(whole, said)
    with replacing(path) as unfinished:
        _extras.load("safetensors.torch", "train").save_file(whole, unfinished, said)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a ``.safetensors`` file, and the texts beside them.

    Files without a checksum, of other programs and of former versions, are read as they are.

    Raises:
        InputError: no such file, or its content is not what was written.

    Example:
        >>> import tempfile
        >>> import torch
        >>> file = Path(tempfile.mkdtemp()) / "a.safetensors"
        >>> save_tensors({"a": torch.ones(2)}, file, {"unit": "m"})
        >>> read_tensors(file)
        ({'a': tensor([1., 1.])}, {'unit': 'm'})
    """
    try:
        with _extras.load("safetensors", "train").safe_open(path, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
            said = dict(stored.metadata() or {})
    except Exception as error:  # the reader's own error type is private to its Rust half
        raise InputError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    expected = said.pop(_CHECKSUM, None)
    if expected is not None and checksum(tensors, said) != expected:
        raise InputError(
            f"{path} is damaged: its checksum is another than when it was written; put it back from a copy, or write "
            "it again"
        )
    return tensors, said


def checksum(tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> str:
    """CRC-32 over names, dtypes, shapes and bytes of tensors on the CPU, and over the texts, in the order of the names.

    Example:
        >>> import torch
        >>> checksum({"a": torch.zeros(2)}, {}) == checksum({"a": torch.zeros(2, 1)}, {})
        False
    """
    import torch

    found = 0
    for name, tensor in sorted(tensors.items()):
        found = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), found)
        found = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, found)
    for name, text in sorted(said.items()):
        found = zlib.crc32(f"{name} {text}".encode("utf-8", "surrogatepass"), found)
    return f"{found:08x}"

"""Files: atomic writes with a clear error when the disk is full, readers whose errors name the file, and tensors."""

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

from polyanchor._errors import InputError
from polyanchor._optional import load

if TYPE_CHECKING:  # the command line reads paths before it needs torch
    from torch import Tensor

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HOST = f"{zlib.crc32(os.fsencode(platform.node())):08x}"
_UNFINISHED = re.compile(r"(?P<name>.*)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.writing", re.DOTALL)
_LONGEST = 200  # bytes of a file's own name in its unfinished name; systems allow 255 in all
_DAMAGE: tuple[type[Exception], ...] = (  # what readers raise for unexpected content
    csv.Error,
    zlib.error,
    struct.error,
    BadZipFile,
    EOFError,
    OverflowError,  # a size beyond an integer
    RecursionError,  # nesting without end
    SyntaxError,  # numpy, from the header of an array; so is the next
    tokenize.TokenError,
)
_CHECKSUM = "crc32"  # three times as fast as a cryptographic hash: it finds damage, not forgery


class JobFailedError(Exception):
    """The job failed, and neither its input nor the program is wrong: a full disk, a killed process.

    The message says what happened and how to go on. The command line shows it and ends with exit code 1.
    """


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as a shell reads it: a leading ``~`` is the home folder.

    Example:
        >>> user_path("photos/a.jpg").as_posix()
        'photos/a.jpg'
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser fails where there is no such user


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file atomically: the block writes to a temporary name, which is then flushed to disk and renamed.

    A writer that fails or is killed leaves the previous file untouched; its remains are removed by the next writer of
    the same file. Of several concurrent writers the last one wins. The mode is that of the previous file, or follows
    the umask, whatever the library that writes does. The folder must exist.

    Args:
        path: the file; the block gets the name to write to.

    Raises:
        JobFailedError: the disk is full; the partial file is removed.

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
            os.fsync(file.fileno())  # a power failure may undo the renaming, and then the previous file is there
        unfinished.replace(path)
        remove_unfinished(path.parent, path.name)
    except BaseException as error:  # Ctrl-C too: nothing unfinished stays
        unfinished.unlink(missing_ok=True)
        reason = no_room(error)
        if reason is None:
            raise
        before = "; the file that was there before is whole" if path.exists() else ""
        raise JobFailedError(f"{path} could not be written: {reason}{before}. Make room on that disk") from error


def unfinished_name(path: Path) -> Path:
    """A name beside ``path`` that no other writer uses: it holds the host, the process and a random number."""
    return path.with_name(f"{_shortened(path.name)}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.writing")


def is_unfinished(name: str) -> bool:
    """Whether a file name is one of :func:`unfinished_name`."""
    return _UNFINISHED.fullmatch(name) is not None


def remove_unfinished(folder: Path, name: str = "") -> None:
    """Remove what ended writers of this machine left in a folder, of one file or of all."""
    for entry in os.scandir(folder):
        match = _UNFINISHED.fullmatch(entry.name)
        if match is None or match["host"] != _HOST or (name and match["name"] != _shortened(name)):
            continue
        if not _is_running(int(match["pid"])):
            with suppress(OSError):  # another process may be faster
                Path(entry.path).unlink()


def _shortened(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_LONGEST].decode("utf-8", "ignore").encode())


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def no_room(error: BaseException | None) -> str | None:
    """The system's message if a full disk caused the error, else None.

    torch and safetensors wrap the system's error, or put its number into their text.
    """
    while error is not None:
        quoted = re.search(r"\(os error (\d+)\)", str(error))
        number = error.errno if isinstance(error, OSError) else int(quoted[1]) if quoted else None
        if number in _NO_ROOM:
            return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def reading(name: str, *more: type[Exception]) -> Iterator[None]:
    """Turn errors about a file's content into an ``InputError`` that begins with ``name``, the file or source.

    ``more`` are errors of the library in use that mean damage too. Errors of the system pass: they name the file.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(
            f"{name}: expected UTF-8 text, got the byte {byte:#04x} at {error.start}; save it as UTF-8"
        ) from error
    except OSError as error:
        # Without an errno it is a library's word for damaged content (pyarrow's); EINVAL comes from a damaged archive
        # that makes its reader seek before the beginning.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise InputError(_damaged(name, error)) from error
    except (ValueError, TypeError) as error:  # a wrong dtype in a file is bad input, not a bug of the caller
        if isinstance(error, ValueError) and str(error).startswith(name):
            raise
        raise InputError(f"{name}: {error}") from error
    except _DAMAGE + more as error:
        raise InputError(_damaged(name, error)) from error


def _damaged(name: str, error: Exception) -> str:
    return f"{name}: damaged or of another format: {str(error) or type(error).__name__}"


def text_lines(file: Path) -> list[str]:
    """The lines of a UTF-8 text file."""
    with reading(str(file)):
        return file.read_text(encoding="utf-8-sig").splitlines()


def what_was_refused(error: Exception) -> str:
    """The global that torch's restricted unpickler refused, without its advice to load the file all the same."""
    named = re.search(r"GLOBAL (\S+)", str(error))
    first = (str(error).splitlines() or ["no content"])[0]
    return f": {named[1] if named else first}"


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors and metadata to a ``.safetensors`` file atomically, with a checksum in its header."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = dict(metadata or {})
    metadata[_CHECKSUM] = checksum(whole, metadata)
    with replacing(path) as unfinished:
        load("safetensors.torch", "train").save_file(whole, unfinished, metadata)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and metadata of a ``.safetensors`` file; the checksum is verified where the file has one.

    Raises:
        InputError: no such file, or its content is not what was written.
    """
    try:
        with load("safetensors", "train").safe_open(path, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
            metadata = dict(stored.metadata() or {})
    except Exception as error:  # the reader's own error type is private to its Rust half
        raise InputError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    expected = metadata.pop(_CHECKSUM, None)
    if expected is not None and checksum(tensors, metadata) != expected:
        raise InputError(
            f"{path} is damaged: its checksum is another than when it was written; put it back from a copy, or write "
            "it again"
        )
    return tensors, metadata


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """CRC-32 over names, dtypes, shapes and bytes of CPU tensors and over the metadata, in the order of the names."""
    import torch

    crc = 0
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    for name, text in sorted(metadata.items()):
        crc = zlib.crc32(f"{name} {text}".encode("utf-8", "surrogatepass"), crc)
    return f"{crc:08x}"

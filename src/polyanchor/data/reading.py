"""Errors of the packages that read files, turned into bad input that names the file."""

from __future__ import annotations

import csv
import errno
import re
import struct
import tokenize
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

from polyanchor._errors import InputError

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

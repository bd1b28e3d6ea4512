"""Encoded images opened with Pillow: regular files alone, up to a number of pixels, whatever their metadata."""

from __future__ import annotations

import io
import stat
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from polyanchor._errors import InputError
from polyanchor._extras import load

T = TypeVar("T")
MAX_PIXELS = 178_956_970
"""Pixels of an image above which it is refused unless something else is asked for; Pillow's own limit."""

NO_DECODER = frozenset({"BUFR", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow lists and opens, and has no decoder of its own for."""

_LARGE = MAX_PIXELS // 2  # where Pillow begins to warn


def with_opened(source: Path | io.BytesIO, work: Callable[[Any], T], *, max_pixels: int = MAX_PIXELS) -> T:
    """``work(image)`` of an image that is open and not decoded yet.

    Where that fails in PNG, JPEG or WEBP, it is tried once more without what the pixels do not need: text, profiles and
    the like. A pipe, a socket or a device is never opened.

    Args:
        source: a file, or its content.
        work: whatever is to be done with the image.
        max_pixels: most pixels that the image may have; Pillow's own limit does not count.

    Raises:
        InputError: no regular file, a format without a decoder, or more pixels.
        FileNotFoundError: there is no such file.
        Exception: whatever Pillow or ``work`` raises.

    Example:
        >>> from PIL import Image
        >>> Image.new("RGB", (4, 3)).save(content := io.BytesIO(), "PNG")
        >>> with_opened(content, lambda image: (image.format, image.size))
        ('PNG', (4, 3))
    """
    if isinstance(source, Path) and not stat.S_ISREG(source.stat().st_mode):
        raise InputError("not a regular file")  # whoever opens a pipe waits for its other end
    try:
        with _opened(source, max_pixels) as image:
            return work(image)
    except (MemoryError, InputError):
        raise
    except Exception:  # Pillow's readers raise nearly anything
        bare = _without_metadata(source)
        if bare is None:
            raise
    with _opened(io.BytesIO(bare), max_pixels) as image:
        return work(image)


@contextmanager
def _opened(source: Path | io.BytesIO, max_pixels: int) -> Iterator[Any]:
    pil = load("PIL.Image", "train")
    with _unlimited(pil):
        image = pil.open(source)
    with image:
        if image.format in NO_DECODER:
            raise InputError(f"{image.format} is a format that is not read")
        pixels = image.width * image.height
        if pixels > max_pixels:
            raise InputError(f"it has {pixels:,} pixels, and data.max_pixels allows {max_pixels:,}")
        with (
            _unlimited(pil) if pixels > _LARGE else nullcontext()
        ):  # TIFF's pixels are counted again as they are loaded
            yield image


_lock = threading.Lock()
_inside = 0
_limit: int | None = None


@contextmanager
def _unlimited(pil: Any) -> Iterator[None]:
    """Without Pillow's own limit, which is one for the whole process, and whose warning does not name the image."""
    global _inside, _limit
    with _lock:
        if not _inside:
            _limit, pil.MAX_IMAGE_PIXELS = pil.MAX_IMAGE_PIXELS, None
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                pil.MAX_IMAGE_PIXELS = _limit


def _without_metadata(source: Path | io.BytesIO) -> bytes | None:
    """The image with what its pixels need and little else; None where that is not known or it holds nothing else."""
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
        file.seek(0)
        head = file.read(12)
        parts = next((parts for begin, parts in _FORMATS.items() if head.startswith(begin)), None)
        if parts is None:
            return None
        content = head + file.read()
    bare = parts(content)
    return None if bare == content else bare


def _bare_png(content: bytes) -> bytes:
    kept, at = [content[:8]], 8
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length
        whole = zlib.crc32(content[at + 4 : end - 4]).to_bytes(4, "big") == content[end - 4 : end]
        if kind[:1].isupper() or (kind == b"eXIf" and whole):  # a capital: nothing can be shown without
            kept.append(content[at:end])
        at = end
    return b"".join(kept)


def _bare_jpeg(content: bytes) -> bytes:
    """Without profiles, comments and headers too short to be read; APP1 may tell the orientation."""
    kept, at = [content[:2]], 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:  # there the pixels begin
        marker, length = content[at + 1], struct.unpack_from(">H", content, at + 2)[0]
        shortest = {0xE0: 16, 0xEE: 14}.get(marker, 2)  # JFIF's and Adobe's tell how colours are stored
        if length >= shortest and not (0xE2 <= marker <= 0xED or marker in (0xEF, 0xFE)):
            kept.append(content[at : at + 2 + length])
        at += 2 + length
    return b"".join([*kept, content[at:]])


def _bare_webp(content: bytes) -> bytes:
    kept, at = [], 12
    while at + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, at)
        end = at + 8 + length + length % 2
        chunk = content[at:end]
        if kind == b"VP8X":
            kept.append(chunk[:8] + bytes([chunk[8] & ~0x2C]) + chunk[9:])  # it announces profile, EXIF and XMP
        elif kind in (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"):
            kept.append(chunk)
        at = end
    chunks = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


_FORMATS = {b"\x89PNG\r\n\x1a\n": _bare_png, b"\xff\xd8\xff": _bare_jpeg, b"RIFF": _bare_webp}

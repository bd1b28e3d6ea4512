"""Images in files, in encoded bytes and in arrays, behind one interface.

Decoding and resizing run outside of Python's lock, opening a file and the rest inside, so that two threads take about
three quarters of the time of one. A worker process has one thread, and decodes with that.
"""

from __future__ import annotations

import io
import stat
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._optional import load
from polyanchor.datasets.spec import MAX_PIXELS as MAX_PIXELS
from polyanchor.datasets.transforms import Cut, ImageTransform

if TYPE_CHECKING:
    from PIL.Image import Image


T = TypeVar("T")
R = TypeVar("R")
Look: TypeAlias = Callable[[int, int], float]
"""Width and height of the upright image in pixels -> the factor by which it may be decoded smaller."""

NO_DECODER = frozenset({"BUFR", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow lists and opens but cannot decode by itself."""

_LARGE = MAX_PIXELS // 2  # where Pillow begins to warn
_ORIENTATION, _BITS = 0x0112, 258  # tags of EXIF and of TIFF
_TURNED = (5, 6, 7, 8)  # orientations that exchange width and height
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
_CANNOT_BE_READ = " cannot be read: "
_CHUNK = 8  # images that a thread takes at once: few enough that no thread waits long for the last one


class BadImageError(InputError):
    """An image is corrupt, truncated or missing.

    A worker process of ``torch.utils.data.DataLoader`` sends an error home as its class and one text, in which the
    message comes last, after the worker's traceback. So this error carries its message alone, and keeps only the
    message of such a text.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())

    @classmethod
    def of(cls, name: str, reason: str) -> BadImageError:
        """The error for the image called ``name``."""
        return cls(
            f"{name}{_CANNOT_BE_READ}{reason}. Replace the file, or leave such images out with --on-bad-image skip"
        )

    @property
    def name(self) -> str:
        """Name of the image, as the data source gives it."""
        return str(self).rpartition(_CANNOT_BE_READ)[0]


def with_opened(source: Path | io.BytesIO, work: Callable[[Any], T], *, max_pixels: int = MAX_PIXELS) -> T:
    """Open an image without decoding it and return ``work(image)``.

    A PNG, JPEG or WEBP file for which that fails is tried once more without its metadata (text, profiles and the like).
    Pipes, sockets and devices are never opened.

    Args:
        source: a file, or its content.
        work: function of the opened image.
        max_pixels: limit of the image's pixels, in place of Pillow's own.

    Raises:
        InputError: not a regular file, a format without a decoder, or more pixels.
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
        with _unlimited(pil) if pixels > _LARGE else nullcontext():  # loading a TIFF counts its pixels again
            yield image


_lock = threading.Lock()
_inside = 0
_limit: int | None = None


@contextmanager
def _unlimited(pil: Any) -> Iterator[None]:
    """Lift Pillow's limit, which holds for the whole process and whose warning does not name the image."""
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
    """The encoded image without metadata; None for another format, or where there are none."""
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
        file.seek(0)
        head = file.read(12)
        strip = next((strip for begin, strip in _STRIPPERS.items() if head.startswith(begin)), None)
        if strip is None:
            return None
        content = head + file.read()
    bare = strip(content)
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
    """Without profiles, comments and headers too short to be read; APP1, which may hold the orientation, stays."""
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


_STRIPPERS = {b"\x89PNG\r\n\x1a\n": _bare_png, b"\xff\xd8\xff": _bare_jpeg, b"RIFF": _bare_webp}


def orientation(image: Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or the metadata are broken."""
    try:
        number = image.getexif().get(_ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception:  # broken metadata make Pillow raise nearly anything, and the pixels are not to blame
        return 1
    return number if number in range(1, 9) else 1


def is_turned(image: Image) -> bool:
    """Whether width and height are exchanged in the upright image."""
    return orientation(image) in _TURNED


def upright_rgb(image: Image) -> Image:
    """A decoded image in RGB and upright by its EXIF orientation; the same object if it already is."""
    turn = load("PIL.Image", "train").Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    image, number = rgb(image), orientation(image)
    return image.transpose(turns[number]) if number in turns else image


def rgb(image: Image) -> Image:
    """Convert to RGB. Transparency is dropped.

    16-bit values (modes ``I;16``, ``I;16B`` ..., and ``I`` from PNG, PPM and 16-bit TIFF) are divided by 257, 12-bit
    values by 16. Other integers (``I``) are 8-bit values if all lie in 0..255, else 16-bit values if all lie in
    0..65535. Floats (``F``) are multiplied by 255 if all lie in 0..1, else they are 8-bit values if all lie in
    0..255 and the highest is 2 or more: an image that goes a little beyond 1 would come out black.

    Raises:
        InputError: the values lie in none of these ranges.

    Example:
        >>> from PIL import Image
        >>> rgb(Image.new("F", (1, 1), 0.5)).getpixel((0, 0)), rgb(Image.new("I", (1, 1), 200)).getpixel((0, 0))
        ((128, 128, 128), (200, 200, 200))
    """
    if image.mode == "F" or image.mode.startswith("I"):  # Pillow would cut off at 255, or take 0..1 for black
        shades = _of_floats(image) if image.mode == "F" else _of_integers(image)
        image = load("PIL.Image", "train").fromarray(shades.astype("uint8"))
    if image.mode == "P" and "transparency" in image.info:  # Pillow would warn
        image = image.convert("RGBA")
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    return image if image.mode == "RGB" else image.convert("RGB")  # which would be a copy


def _of_integers(image: Image) -> Any:
    values = load("numpy", "train").asarray(image)
    bits = getattr(image, "tag_v2", {}).get(_BITS, (0,))[0]
    if bits == 12:
        return values // 16
    if image.mode.startswith("I;16"):
        return values // 257
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise InputError(
            f"its values (mode I) lie between {low} and {high}, expected 0 to 255 or 0 to 65535; save it with 8 or "
            "16 bits"
        )
    return values // 257 if high > 255 or bits == 16 or image.format in ("PNG", "PPM") else values


def _of_floats(image: Image) -> Any:
    values = load("numpy", "train").asarray(image)
    low, high = float(values.min()), float(values.max())  # NaN if one of them is
    if low >= 0 and high <= 1:
        return (255 * values).round()
    if low >= 0 and 2 <= high <= 255:
        return values.round()
    raise InputError(
        f"its values (mode F) lie between {low:g} and {high:g}, expected 0 to 1 or 0 to 255; save it with 8 or 16 bits"
    )


class Images(Protocol):
    """A sequence of images that are read one at a time."""

    def __len__(self) -> int:
        """Number of images."""

    def name(self, row: int) -> str:
        """The image's name: a path relative to its data set, or a row of a table."""

    def read(self, row: int, look: Look | None = None) -> Image:
        """The image in RGB, turned upright as its EXIF orientation says.

        Args:
            row: number of the image.
            look: called once; where it returns 2.5, a JPEG may be decoded at half of its size, as that takes less time
                (a quarter and an eighth too). Other formats are always decoded whole, as is all without it.

        Raises:
            BadImageError: the image is corrupt, truncated or missing.
        """


class _Named:
    """A number of images with a name each."""

    def __init__(self, names: Sequence[str], count: int) -> None:
        if count != len(names):
            raise InputError(f"names must hold one name per image, got {len(names)} for {count} images")
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def name(self, row: int) -> str:
        return self.names[row]


class _EncodedImages(_Named):
    """Images that are decoded when they are read."""

    max_pixels = MAX_PIXELS

    def source(self, row: int) -> Path | io.BytesIO:
        """The image's file, or its content."""
        raise NotImplementedError

    def read(self, row: int, look: Look | None = None) -> Image:
        return self.opened(row, lambda image: _pixels(image, look))

    def opened(self, row: int, work: Callable[[Any], T]) -> T:
        """``work`` of the opened image; whatever goes wrong with it is a :class:`BadImageError`."""
        name = self.name(row)
        try:
            return with_opened(self.source(row), work, max_pixels=self.max_pixels)
        except FileNotFoundError:
            raise BadImageError.of(name, "the file is missing") from None
        except (MemoryError, BadImageError):
            raise
        except Exception as error:  # a broken file makes PIL's readers raise nearly anything, struct.error included
            # the path is in the message already, and PIL's text may hold a memory address, which never helps
            reason = "not an image" if type(error).__name__ == "UnidentifiedImageError" else str(error)
            raise BadImageError.of(name, reason or type(error).__name__) from error


class ImageFiles(_EncodedImages):
    """Images in files.

    Args:
        root: folder that ``paths`` start from.
        paths: one per image, with ``/`` between folders, which are the names; an absolute path stands for itself.
    """

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        super().__init__(paths, len(paths))
        self.root, self.paths = root, paths

    def source(self, row: int) -> Path:
        """The file."""
        return self.root / self.paths[row]


class ImageBytes(_EncodedImages):
    """Images as encoded bytes (PNG, JPEG and so on).

    Args:
        cells: one per image: ``bytes``, or an Arrow binary array, of which one cell is copied when it is read.
        names: one per image.
    """

    def __init__(self, cells: Any, names: Sequence[str]) -> None:
        super().__init__(names, len(cells))
        self.cells = cells

    def source(self, row: int) -> io.BytesIO:
        """The bytes of a cell; an empty cell is a :class:`BadImageError`."""
        cell = self.cells[row]
        encoded = cell.as_py() if hasattr(cell, "as_py") else cell
        if encoded is None:
            raise BadImageError.of(self.names[row], "the table holds no bytes for it")
        return io.BytesIO(encoded)


class ImageArrays(_Named):
    """Images as pixels in memory.

    Args:
        pixels: ``(N, H, W)`` or ``(N, H, W, 3)`` uint8 numpy array.
        names: one per image.
    """

    def __init__(self, pixels: Any, names: Sequence[str]) -> None:
        shape, dtype = tuple(pixels.shape), str(pixels.dtype)
        if dtype != "uint8" or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 3):
            raise InputError(f"pixels must be uint8 of shape (N, H, W) or (N, H, W, 3), got {dtype} {shape}")
        super().__init__(names, shape[0])
        self.pixels = pixels

    def read(self, row: int, look: Look | None = None) -> Image:
        image: Image = load("PIL.Image", "train").fromarray(self.pixels[row])
        if look is not None:
            look(image.width, image.height)
        return image.convert("RGB")


class ImageRows:
    """A selection of other images; nothing is copied.

    Args:
        images: the other images.
        rows: ``(M,)`` int64 row numbers, in the order of the selection.
    """

    def __init__(self, images: Images, rows: Tensor) -> None:
        if isinstance(images, ImageRows):  # a selection of a selection stays one step away from the images
            rows, images = images.rows[rows], images.images
        self.images: Images = images
        self.rows: Tensor = rows

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, row: int) -> str:
        """The name the image has in ``images``."""
        return self.images.name(int(self.rows[row]))

    def read(self, row: int, look: Look | None = None) -> Image:
        return self.images.read(int(self.rows[row]), look)


def file_of(images: Images, row: int) -> Path | None:
    """The file that an image lies in; None where it lies in a table or in memory.

    Example:
        >>> file_of(ImageFiles(Path("photos"), ["cat/1.jpg"]), 0).as_posix()
        'photos/cat/1.jpg'
    """
    if isinstance(images, ImageRows):
        return file_of(images.images, int(images.rows[row]))
    return images.source(row) if isinstance(images, ImageFiles) else None


def limited(images: Images, max_pixels: int) -> Images:
    """The same images with another limit of pixels, for those that are decoded when they are read."""
    if isinstance(images, ImageRows):
        return ImageRows(limited(images.images, max_pixels), images.rows)
    if isinstance(images, (ImageFiles, ImageBytes)):
        images = copy(images)
        images.max_pixels = max_pixels
    return images


def look_at_head(images: Images, row: int) -> None:
    """Open an image without decoding it: format and size stand in the first bytes of a file.

    Raises:
        BadImageError: it is missing, no image or too large.
    """
    if isinstance(images, ImageRows):
        look_at_head(images.images, int(images.rows[row]))
    elif isinstance(images, (ImageFiles, ImageBytes)):
        images.opened(row, lambda image: None)


def _pixels(image: Any, look: Look | None) -> Image:
    jpeg = image.format in ("JPEG", "MPO")
    # in a JPEG the orientation stands before the pixels; to parse it takes time
    plain = jpeg and image.info.keys().isdisjoint(("exif", "xmp"))
    if look is not None and jpeg:
        _decode_smaller(image, look, plain=plain)
    image.load()
    upright: Image = rgb(image) if plain else upright_rgb(image)
    if look is not None and not jpeg:
        look(upright.width, upright.height)
    return upright


def _decode_smaller(image: Any, look: Look, *, plain: bool) -> None:
    """Set an opened JPEG to be decoded at 1/2, 1/4 or 1/8 where ``look`` allows it."""
    width, height = image.size
    allowed = look(height, width) if not plain and is_turned(image) else look(width, height)
    times = max(n for n in (1, 2, 4, 8) if n <= max(allowed, 1))
    if 1 < times <= min(width, height):
        image.draft(None, (width // times, height // times))


def decoded(
    images: Images,
    transform: ImageTransform,
    rows: Sequence[int],
    seeds: Sequence[int],
    *,
    threads: int,
) -> tuple[Tensor, list[BadImageError | None]]:
    """Read, crop and normalise images.

    Args:
        images: what to read from.
        transform: applied to each.
        rows: B row numbers.
        seeds: B numbers; an image's crop depends on its own seed alone, whatever thread decodes it.
        threads: number of threads that decode.

    Returns:
        The images that could be read, ``(B', 3, size, size)`` float32 channels-last, and for each of ``rows`` the
        error or None.
    """
    threads = _check.count("threads", threads)
    pixels = load("numpy", "train").empty((len(rows), transform.size, transform.size, 3), "uint8")

    def fill(number: int) -> BadImageError | None:
        try:
            pixels[number] = _cropped(images, transform, rows[number], seeds[number])
        except BadImageError as error:
            return error
        return None

    errors = in_threads(fill, range(len(rows)), threads)
    if any(errors):
        pixels = pixels[[error is None for error in errors]]
    return transform.normalised(torch.from_numpy(pixels)), errors


def _cropped(images: Images, transform: ImageTransform, row: int, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)  # its own: torch's is shared by all threads
    cuts: list[Cut] = []

    def look(width: int, height: int) -> float:
        cuts.append(transform.cutter(width, height, generator))
        return cuts[-1].reduction

    image = images.read(row, look)
    return cuts[-1].pixels(image)


def in_threads(function: Callable[[T], R], values: Sequence[T], threads: int) -> list[R]:
    """``[function(value) for value in values]`` by several threads; one thread is the caller's own.

    Example:
        >>> in_threads(abs, [-3, 2, -1], threads=2)
        [3, 2, 1]
    """
    if threads == 1:
        return [function(value) for value in values]
    chunks = [values[begin : begin + _CHUNK] for begin in range(0, len(values), _CHUNK)]

    def do(chunk: Iterable[T]) -> list[R]:
        return [function(value) for value in chunk]

    # A pool lives for one batch, well under a millisecond: a process that forks has none to lose.
    with ThreadPoolExecutor(threads) as pool:
        return [result for results in pool.map(do, chunks) for result in results]

"""Images in files, in encoded bytes and in arrays, all read in one way."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from torch import Tensor

from polyanchor._errors import InputError
from polyanchor._extras import load
from polyanchor.data.opening import MAX_PIXELS, with_opened
from polyanchor.data.shades import is_turned, rgb, upright_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

Look: TypeAlias = Callable[[int, int], float]
"""Told width and height of the upright image in pixels, it says how many times smaller the image may be given."""

_SAYS = " cannot be read: "


class BadImageError(InputError):
    """An image is corrupt, truncated or missing.

    A worker process of ``torch.utils.data.DataLoader`` sends an error home as its class and one text, in
    which the message comes last, after the worker's traceback. So all that this error knows is its message,
    and of such a text it keeps the message alone.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())

    @classmethod
    def of(cls, name: str, reason: str) -> BadImageError:
        """The error for the image called ``name``."""
        return cls(f"{name}{_SAYS}{reason}. Replace the file, or leave such images out with --on-bad-image skip")

    @property
    def name(self) -> str:
        """Name of the image, as the data source gives it."""
        return str(self).rpartition(_SAYS)[0]


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
            look: called once; 2.5 from it allows the image at half of its size, as JPEG decodes to a half, a quarter
                or an eighth in less time. Other formats come whole. Without it, so do all.

        Raises:
            BadImageError: the image is corrupt, truncated or missing.
        """


class ImageFiles:
    """Images in files.

    Args:
        root: folder that ``paths`` start from.
        paths: one per image, with ``/`` between folders; an absolute path stands for itself.
    """

    max_pixels = MAX_PIXELS

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        self.root, self.paths = root, paths

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, row: int) -> str:
        """The path as it was given."""
        return self.paths[row]

    def read(self, row: int, look: Look | None = None) -> Image:
        """See :meth:`Images.read`."""
        return _decode(self, row, look)

    def source(self, row: int) -> Path:
        """The file."""
        return self.root / self.paths[row]


class ImageBytes:
    """Images as encoded bytes (PNG, JPEG and so on).

    Args:
        cells: one per image: ``bytes``, or an Arrow binary array, which stays where it is; one cell is copied
            when it is read.
        names: one per image.
    """

    max_pixels = MAX_PIXELS

    def __init__(self, cells: Any, names: Sequence[str]) -> None:
        if len(cells) != len(names):
            raise InputError(f"names must hold one name per image, got {len(names)} for {len(cells)} images")
        self.cells, self.names = cells, names

    def __len__(self) -> int:
        return len(self.names)

    def name(self, row: int) -> str:
        """The name as it was given."""
        return self.names[row]

    def read(self, row: int, look: Look | None = None) -> Image:
        """See :meth:`Images.read`."""
        return _decode(self, row, look)

    def source(self, row: int) -> io.BytesIO:
        """The bytes of a cell; an empty one is a :class:`BadImageError`."""
        cell = self.cells[row]
        encoded = cell.as_py() if hasattr(cell, "as_py") else cell
        if encoded is None:
            raise BadImageError.of(self.names[row], "the table holds no bytes for it")
        return io.BytesIO(encoded)


class ImageArrays:
    """Images as pixels in memory.

    Args:
        pixels: ``(N, H, W)`` or ``(N, H, W, 3)`` uint8 numpy array.
        names: one per image.
    """

    def __init__(self, pixels: Any, names: Sequence[str]) -> None:
        shape, dtype = tuple(pixels.shape), str(pixels.dtype)
        if dtype != "uint8" or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 3):
            raise InputError(f"pixels must be uint8 of shape (N, H, W) or (N, H, W, 3), got {dtype} {shape}")
        if shape[0] != len(names):
            raise InputError(f"names must hold one name per image, got {len(names)} for {shape[0]} images")
        self.pixels, self.names = pixels, names

    def __len__(self) -> int:
        return len(self.names)

    def name(self, row: int) -> str:
        """The name as it was given."""
        return self.names[row]

    def read(self, row: int, look: Look | None = None) -> Image:
        """See :meth:`Images.read`."""
        image: Image = load("PIL.Image", "train").fromarray(self.pixels[row])
        if look is not None:
            look(image.width, image.height)
        return image.convert("RGB")


class ImageRows:
    """Some rows of other images, in the order asked for; nothing is copied.

    Args:
        images: the other images.
        rows: ``(M,)`` int64, their row numbers.
    """

    def __init__(self, images: Images, rows: Tensor) -> None:
        if isinstance(images, ImageRows):  # rows of rows: one step to the image however often it was chosen from
            rows = images.rows[rows]
            images = images.images
        self.images: Images = images
        self.rows: Tensor = rows

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, row: int) -> str:
        """The name the image has in ``images``."""
        return self.images.name(int(self.rows[row]))

    def read(self, row: int, look: Look | None = None) -> Image:
        """See :meth:`Images.read`."""
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
    """The same images with another limit for their pixels; those that lie in memory decoded have none."""
    if isinstance(images, ImageRows):
        return ImageRows(limited(images.images, max_pixels), images.rows)
    if isinstance(images, (ImageFiles, ImageBytes)):
        images = copy(images)
        images.max_pixels = max_pixels
    return images


def look_at_head(images: Images, row: int) -> None:
    """Open an image without decoding it: a file's format and size stand in its first bytes.

    Raises:
        BadImageError: it is missing, no image or too large.
    """
    if isinstance(images, ImageRows):
        look_at_head(images.images, int(images.rows[row]))
    elif isinstance(images, (ImageFiles, ImageBytes)):
        with _bad_image(images.name(row)):
            with_opened(images.source(row), lambda image: None, max_pixels=images.max_pixels)


@contextmanager
def _bad_image(name: str) -> Iterator[None]:
    """Whatever goes wrong with an encoded image is a :class:`BadImageError`."""
    try:
        yield
    except FileNotFoundError:
        raise BadImageError.of(name, "the file is missing") from None
    except (MemoryError, BadImageError):
        raise
    except Exception as error:  # a broken file makes PIL's readers raise nearly anything, struct.error included
        # the path is in the message already, and PIL's text may hold a memory address, which never helps
        reason = "not an image" if type(error).__name__ == "UnidentifiedImageError" else str(error)
        raise BadImageError.of(name, reason or type(error).__name__) from error


def _decode(images: ImageFiles | ImageBytes, row: int, look: Look | None) -> Image:
    """Read one encoded image."""
    with _bad_image(images.name(row)):
        return with_opened(images.source(row), lambda image: _pixels(image, look), max_pixels=images.max_pixels)


def _pixels(image: Any, look: Look | None) -> Image:
    jpeg = image.format in ("JPEG", "MPO")
    # in JPEG all that can tell an orientation stands before the pixels; to look for it takes time
    plain = jpeg and image.info.keys().isdisjoint(("exif", "xmp"))
    if look is not None and jpeg:
        _decode_smaller(image, look, plain=plain)
    image.load()
    seen = rgb(image) if plain else upright_rgb(image)
    if look is not None and not jpeg:
        look(seen.width, seen.height)
    return seen


def _decode_smaller(image: Any, look: Look, *, plain: bool) -> None:
    """Have a JPEG that is not decoded yet decoded at 1/2, 1/4 or 1/8, if ``look`` allows it."""
    width, height = image.size
    allowed = look(height, width) if not plain and is_turned(image) else look(width, height)
    times = max(n for n in (1, 2, 4, 8) if n <= max(allowed, 1))
    if 1 < times <= min(width, height):
        image.draft(None, (width // times, height // times))

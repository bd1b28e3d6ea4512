"""Images that somebody hands over one by one: paths of files, pictures in memory, or both."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from polyanchor._errors import InputTypeError
from polyanchor._extras import load
from polyanchor.data.images import BadImageError, ImageFiles, Look
from polyanchor.data.shades import upright_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

Given: TypeAlias = "str | os.PathLike[str] | Image"
# Opened lazily, a PIL image is decoded where it is first looked at, and not by two threads at once: not the same image,
# and not two that read from one stream, as members of an archive do.
_ONE_AT_A_TIME = threading.Lock()


class GivenImages:
    """Paths and PIL images, in any order.

    Args:
        given: one per image. PIL images stay as they are.

    Raises:
        TypeError: an entry is neither.

    Example:
        >>> from PIL import Image
        >>> images = GivenImages(["photos/a.jpg", Image.new("L", (4, 3))])
        >>> images.name(0), images.name(1), images.read(1).mode
        ('photos/a.jpg', 'image 1', 'RGB')
    """

    def __init__(self, given: Sequence[Given]) -> None:
        kinds = (str, os.PathLike, load("PIL.Image", "train").Image)
        for row, entry in enumerate(given):
            if not isinstance(entry, kinds):
                raise InputTypeError(f"images must be paths or PIL images, got {type(entry).__name__} at place {row}")
        self.given = given

    def __len__(self) -> int:
        return len(self.given)

    def name(self, row: int) -> str:
        """The path as it was given; of a PIL image, the file it was opened from or its place in the list."""
        entry = self.given[row]
        if isinstance(entry, (str, os.PathLike)):
            return os.fspath(entry)
        return str(getattr(entry, "filename", "")) or f"image {row}"

    def read(self, row: int, look: Look | None = None) -> Image:
        """See :meth:`polyanchor.data.images.Images.read`."""
        entry = self.given[row]
        if isinstance(entry, (str, os.PathLike)):
            return ImageFiles(Path(), [os.fspath(entry)]).read(0, look)
        try:
            with _ONE_AT_A_TIME:
                entry.load()
                seen = upright_rgb(entry)
                seen = seen.copy() if seen is entry else seen
        except MemoryError:
            raise
        except Exception as error:  # opened lazily, it is decoded here: see images.py
            raise BadImageError.of(self.name(row), str(error) or type(error).__name__) from error
        if look is not None:
            look(seen.width, seen.height)
        return seen

"""Images that somebody hands over: paths of files, pictures in memory, encoded or as arrays, in any mixture."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from polyanchor._errors import InputError, InputTypeError
from polyanchor._extras import load
from polyanchor._files import user_path
from polyanchor.data.images import BadImageError, ImageFiles, Look
from polyanchor.data.shades import upright_rgb

if TYPE_CHECKING:
    from numpy import ndarray
    from PIL.Image import Image

Given: TypeAlias = "str | os.PathLike[str] | bytes | Image | ndarray[Any, Any]"
# Opened lazily, a PIL image is decoded where it is first looked at, and not by two threads at once: not the same image,
# and not two that read from one stream, as members of an archive do.
_ONE_AT_A_TIME = threading.Lock()


def collected(inputs: Iterable[Given] | Given | Tensor) -> list[Given] | Tensor:
    """A list of images, or vectors, from whatever has only one meaning.

    Args:
        inputs: a tensor, which stays as it is; a NumPy array: ``(N, D)`` floating vectors, one ``(H, W)`` or
            ``(H, W, C)`` uint8 image or ``(N, H, W, C)`` of them, C being 1, 3 or 4; one image; or images in any
            iterable, which is read to its end.

    Raises:
        TypeError: something else, or an array of another dtype.
        ValueError: an array of another shape.

    Example:
        >>> import numpy
        >>> len(collected("photos/a.jpg")), len(collected(numpy.zeros((5, 8, 8, 3), "uint8")))
        (1, 5)
    """
    if isinstance(inputs, Tensor):
        return inputs
    if isinstance(inputs, load("numpy", "train").ndarray):
        return _of_array(inputs)
    if isinstance(inputs, _kinds()):
        return [inputs]  # type: ignore[list-item]
    if not isinstance(inputs, Iterable):
        raise InputTypeError(f"inputs must be images (paths, PIL images, bytes, arrays), got {type(inputs).__name__}")
    return list(inputs)  # GivenImages looks at each


def _of_array(array: ndarray[Any, Any]) -> list[Given] | Tensor:
    shape = tuple(array.shape)
    if array.dtype.kind == "f":
        if array.ndim != 2:
            raise InputError(f"a floating array must be (N, D) vectors, got {shape}; images as arrays are uint8")
        return torch.tensor(array.astype(array.dtype.newbyteorder("="), copy=False))
    if array.dtype != "uint8":
        raise InputTypeError(f"an array must be floating vectors or uint8 images, got {array.dtype}")
    coloured = shape[-1:] in ((1,), (3,), (4,))
    if array.ndim == 4 and coloured:
        return list(array)
    if array.ndim == 2 or (array.ndim == 3 and coloured):
        return [array]
    raise InputError(f"uint8 images must be (H, W), (H, W, C) or (N, H, W, C) with C 1, 3 or 4, got {shape}")


def _kinds() -> tuple[type, ...]:
    return str, os.PathLike, bytes, load("PIL.Image", "train").Image, load("numpy", "train").ndarray


class GivenImages:
    """Images in any form and order.

    Args:
        given: one per image: a path, a PIL image, which stays as it is, the bytes of an image file, or an ``(H, W)``
            or ``(H, W, C)`` uint8 array.

    Raises:
        TypeError: an entry is something else.
        ValueError: an array that is no image.

    Example:
        >>> from PIL import Image
        >>> images = GivenImages(["photos/a.jpg", Image.new("L", (4, 3))])
        >>> images.name(0), images.name(1), images.read(1).mode
        ('photos/a.jpg', 'image 1', 'RGB')
    """

    def __init__(self, given: Sequence[Given]) -> None:
        kinds, array = _kinds(), load("numpy", "train").ndarray
        for row, entry in enumerate(given):
            if not isinstance(entry, kinds):
                raise InputTypeError(
                    "images must be paths, PIL images, bytes of image files or uint8 arrays, got "
                    f"{type(entry).__name__} at place {row}"
                )
            if isinstance(entry, array) and (entry.dtype != "uint8" or entry.ndim > 3 or len(collected(entry)) != 1):
                raise InputError(f"an array in a list must be one image, got {entry.dtype} {entry.shape} at {row}")
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
        entry: Any = self.given[row]
        if isinstance(entry, (str, os.PathLike)):
            return ImageFiles(Path(), [os.fspath(user_path(entry))]).read(0, look)
        image = load("PIL.Image", "train")
        try:
            if isinstance(entry, bytes):
                entry = image.open(io.BytesIO(entry))
            elif not isinstance(entry, image.Image):
                entry = image.fromarray(entry[..., 0] if entry.shape[2:] == (1,) else entry)
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

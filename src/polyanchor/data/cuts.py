"""Which part of an image the network sees: drawn from the image's size alone, so before it is decoded.

Knowing the part first saves work twice: a JPEG that is much larger than needed is decoded at a half, a quarter or an
eighth of its size, and only the pixels that the network sees are resized.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

from polyanchor._extras import load

if TYPE_CHECKING:
    from PIL.Image import Image

Aspect: TypeAlias = Literal["keep", "squeeze"]
_TRIES = 10  # at a shape that fits into the image; as torchvision's RandomResizedCrop
_RATIO = (3 / 4, 4 / 3)  # width / height of a stretched cut, likewise


@dataclass(frozen=True)
class Cut:
    """A rectangle of an image that is stretched to a square, perhaps mirrored.

    Attributes:
        of: width and height of the whole upright image, in pixels.
        box: left, upper, right and lower edge of the rectangle in pixels of that image; may lie between pixels.
        size: side of the square in pixels.
        flip: left becomes right.

    Example:
        >>> from PIL import Image
        >>> cut = Cut((400, 300), (100, 0, 400, 300), 64)
        >>> cut.reduction
        4.6875
        >>> cut.pixels(Image.new("RGB", (200, 150))).shape  # decoded at half its size
        (64, 64, 3)
    """

    of: tuple[int, int]
    box: tuple[float, float, float, float]
    size: int
    flip: bool = False

    @property
    def reduction(self) -> float:
        """How many times smaller the image may be decoded and the square still not be enlarged; 1 or more."""
        left, upper, right, lower = self.box
        return max(1.0, min(right - left, lower - upper) / self.size)

    def pixels(self, image: Image) -> Any:
        """The square out of an RGB image of the size ``of``, or decoded to a half, a quarter or an eighth of it.

        The filter is bilinear and widens with the reduction (antialias). At the rim it takes in what is just outside
        of the box, as if the whole image had been resized and then cut.

        Returns:
            ``(size, size, 3)`` uint8 numpy array.
        """
        # JPEG's smaller pixels cover exactly 2, 4 or 8 of the whole, the last in a row perhaps only in part
        times = 2 ** round(math.log2(max(self.of) / max(image.size)))
        left, upper, right, lower = (edge / times for edge in self.box)
        box = (left, upper, min(right, image.width), min(lower, image.height))
        pil, numpy = _packages()
        seen = image.resize((self.size, self.size), pil.Resampling.BILINEAR, box=box)
        return numpy.asarray(seen.transpose(pil.Transpose.FLIP_LEFT_RIGHT) if self.flip else seen)


@cache
def _packages() -> tuple[Any, Any]:
    return load("PIL.Image", "train"), load("numpy", "train")


Cutter: TypeAlias = Callable[[int, int, "torch.Generator | None"], Cut]
"""Width, height, generator (None: torch's own) -> cut."""


def middle(
    width: int, height: int, generator: torch.Generator | None = None, *, size: int, resize: int, aspect: Aspect
) -> Cut:
    """The middle of the resized image.

    Args:
        width: of the upright image in pixels.
        height: likewise.
        generator: not used.
        size: side of the square in pixels.
        resize: shorter side of the resized image, at least ``size``; both sides if ``aspect`` is ``"squeeze"``.
        aspect: ``"keep"`` or ``"squeeze"``.
    """
    wide, high = _resized(width, height, resize, aspect)
    return _from_resized((width, height), (wide, high), (round((wide - size) / 2), round((high - size) / 2)), size)


def anywhere(
    width: int, height: int, generator: torch.Generator | None, *, size: int, resize: int, aspect: Aspect, flip: bool
) -> Cut:
    """A square from anywhere in the resized image, mirrored half of the time if ``flip``; see :func:`middle`."""
    wide, high = _resized(width, height, resize, aspect)
    x, y, mirror = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    corner = int(x * (wide - size + 1)), int(y * (high - size + 1))
    return _from_resized((width, height), (wide, high), corner, size, flip=flip and mirror < 0.5)


def stretched(
    width: int,
    height: int,
    generator: torch.Generator | None,
    *,
    size: int,
    scale: tuple[float, float],
    flip: bool,
) -> Cut:
    """A rectangle of random area and shape, anywhere in the image (Szegedy et al. 2015, Inception).

    The share of the area is uniform in ``scale``; the logarithm of width / height is uniform between those of 3/4 and
    4/3. Where ten tries give none that fits, it is the largest rectangle of an allowed shape, in the middle.
    """
    draws = torch.rand(2 * _TRIES + 3, generator=generator, dtype=torch.float64).tolist()
    x, y, mirror = draws[-3:]
    low, high = map(math.log, _RATIO)
    for share, shape in zip(draws[0 : 2 * _TRIES : 2], draws[1 : 2 * _TRIES : 2], strict=True):
        area = width * height * (scale[0] + (scale[1] - scale[0]) * share)
        ratio = math.exp(low + (high - low) * shape)
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            left, upper = int(x * (width - wide + 1)), int(y * (height - tall + 1))
            break
    else:
        wide, tall = min(width, round(height * _RATIO[1])), min(height, round(width / _RATIO[0]))
        left, upper = (width - wide) // 2, (height - tall) // 2
    return Cut((width, height), (left, upper, left + wide, upper + tall), size, flip and mirror < 0.5)


def _resized(width: int, height: int, resize: int, aspect: Aspect) -> tuple[int, int]:
    """Width and height of the resized image; the longer side is rounded down."""
    if aspect == "squeeze":
        return resize, resize
    shorter = min(width, height)
    return resize * width // shorter, resize * height // shorter


def _from_resized(
    of: tuple[int, int], resized: tuple[int, int], corner: tuple[int, int], size: int, *, flip: bool = False
) -> Cut:
    """The cut of the original that is the square at ``corner`` of the resized image."""
    (width, height), (wide, high), (x, y) = of, resized, corner
    box = (x * width / wide, y * height / high, (x + size) * width / wide, (y + size) * height / high)
    return Cut(of, box, size, flip)

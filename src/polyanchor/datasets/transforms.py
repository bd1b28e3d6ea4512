"""Transforms from an RGB image to a float32 tensor: random for training, fixed for testing.

The crop is drawn before decoding, which saves work twice: a JPEG that is much larger than needed is decoded at a half,
a quarter or an eighth of its size, and only the pixels that the network sees are resized.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._optional import load

if TYPE_CHECKING:
    from PIL.Image import Image


Transform: TypeAlias = Callable[["Image"], Tensor]
Kind: TypeAlias = Literal["random-resized-crop", "random-crop"]
Aspect: TypeAlias = Literal["keep", "squeeze"]
KINDS = ("random-resized-crop", "random-crop")
ASPECTS = ("keep", "squeeze")
_TRIES, _RATIO = 10, (3 / 4, 4 / 3)  # attempts, and limits of width / height: those of torchvision's RandomResizedCrop


@dataclass(frozen=True)
class Cut:
    """A rectangle of an image that is resized to a square, perhaps mirrored.

    Attributes:
        of: width and height of the whole upright image, in pixels.
        box: left, upper, right and lower edge of the rectangle in pixels of that image, not always whole.
        size: side of the square in pixels.
        flip: whether it is mirrored left to right.

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
        """Factor, 1 or more, by which the image may be decoded smaller without the square being enlarged."""
        left, upper, right, lower = self.box
        return max(1.0, min(right - left, lower - upper) / self.size)

    def pixels(self, image: Image) -> Any:
        """The square out of an RGB image of the size ``of``, or decoded at a half, a quarter or an eighth of it.

        The filter is bilinear with antialias. At the rim it includes pixels just outside of the box, as if the whole
        image had been resized and then cropped.

        Returns:
            ``(size, size, 3)`` uint8 numpy array.
        """
        # JPEG's smaller pixels cover exactly 2, 4 or 8 of the whole, the last in a row perhaps only in part
        times = 2 ** round(math.log2(max(self.of) / max(image.size)))
        left, upper, right, lower = (edge / times for edge in self.box)
        box = (left, upper, min(right, image.width), min(lower, image.height))
        pil, numpy = _packages()
        square = image.resize((self.size, self.size), pil.Resampling.BILINEAR, box=box)
        return numpy.asarray(square.transpose(pil.Transpose.FLIP_LEFT_RIGHT) if self.flip else square)


@cache
def _packages() -> tuple[Any, Any]:
    return load("PIL.Image", "train"), load("numpy", "train")


Cutter: TypeAlias = Callable[[int, int, "torch.Generator | None"], Cut]
"""Width, height, generator (None: torch's own) -> cut."""


def center_crop(
    width: int, height: int, generator: torch.Generator | None = None, *, size: int, resize: int, aspect: Aspect
) -> Cut:
    """The middle of the resized image.

    Args:
        width: of the upright image in pixels.
        height: of the upright image in pixels.
        generator: not used.
        size: side of the square in pixels.
        resize: shorter side of the resized image, at least ``size``; both sides if ``aspect`` is ``"squeeze"``.
        aspect: ``"keep"`` or ``"squeeze"``.
    """
    wide, high = _resized(width, height, resize, aspect)
    return _from_resized((width, height), (wide, high), (round((wide - size) / 2), round((high - size) / 2)), size)


def random_crop(
    width: int, height: int, generator: torch.Generator | None, *, size: int, resize: int, aspect: Aspect, flip: bool
) -> Cut:
    """A square from anywhere in the resized image, mirrored half of the time if ``flip``; see :func:`center_crop`."""
    wide, high = _resized(width, height, resize, aspect)
    x, y, mirror = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    corner = int(x * (wide - size + 1)), int(y * (high - size + 1))
    return _from_resized((width, height), (wide, high), corner, size, flip=flip and mirror < 0.5)


def random_resized_crop(
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


@dataclass(frozen=True)
class ImageTransform:
    """A crop and a normalisation. The crop needs the image's size alone, so that it can be drawn before decoding.

    Attributes:
        cutter: width, height and generator -> crop.
        size: side of the output in pixels.
        mean: of the three channels, for values in [0, 1].
        std: of the three channels, for values in [0, 1].
    """

    cutter: Cutter
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: Image) -> Tensor:
        """RGB image -> ``(3, size, size)`` float32; draws from torch's CPU generator."""
        cut = self.cutter(image.width, image.height, None)
        pixels = load("numpy", "train").array(cut.pixels(image))  # a copy: PIL's is not writable
        return self.normalised(torch.from_numpy(pixels)[None])[0].contiguous()

    def normalised(self, pixels: Tensor) -> Tensor:
        """``(B, size, size, 3)`` uint8 -> ``(B, 3, size, size)`` float32 in the memory format channels-last."""
        # a row of pixels as one axis: torch is five times slower on a last axis of three
        rows = pixels.reshape(-1, self.size * 3).float().div_(255)
        rows.sub_(torch.tensor(self.mean).repeat(self.size)).div_(torch.tensor(self.std).repeat(self.size))
        return rows.view(-1, self.size, self.size, 3).permute(0, 3, 1, 2)


def train_transform(
    *,
    size: int,
    resize: int,
    kind: Kind = "random-resized-crop",
    aspect: Aspect = "keep",
    scale: tuple[float, float] = (0.08, 1.0),
    flip: bool = True,
    mean: Sequence[float],
    std: Sequence[float],
) -> ImageTransform:
    """Random crop, horizontal flip, normalisation.

    ``"random-resized-crop"`` is the published Proxy Anchor protocol: a rectangle of random area and shape is
    resized to the output. ``"random-crop"`` crops a square from the resized image.

    Args:
        size: side of the output in pixels.
        resize: shorter side before the crop, at least ``size``; not used by ``"random-resized-crop"``.
        kind: one of the two above.
        aspect: ``"keep"``: the shorter side becomes ``resize``, and the crop loses the ends of the longer side;
            ``"squeeze"``: both sides become ``resize``, so that the whole of an oblong object stays
            in sight. Not used by ``"random-resized-crop"``.
        scale: least and greatest share of the image's area that ``"random-resized-crop"`` takes.
        flip: mirror half of the images left to right. Not for characters and digits, which it changes.
        mean: of the three channels of the backbone's training images, for values in [0, 1].
        std: of the same, for values in [0, 1].

    Returns:
        RGB image -> ``(3, size, size)`` float32. It draws from torch's CPU generator, or from that of
        :class:`~polyanchor.datasets.loading.ItemDataset`.

    Raises:
        ValueError: an option is out of range.

    Example:
        >>> from PIL import Image
        >>> turn = train_transform(size=32, resize=40, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> turn(Image.new("RGB", (60, 50))).shape
        torch.Size([3, 32, 32])
    """
    _check.one_of("kind", kind, KINDS)
    cutter: Cutter
    if kind == "random-resized-crop":
        low, high = scale
        if not 0 < low <= high <= 1:
            raise InputError(f"scale must be two shares of the area, 0 < least <= greatest <= 1, got {tuple(scale)}")
        _check.positive("size", size)
        cutter = partial(random_resized_crop, size=size, scale=(low, high), flip=flip)
    else:
        _sides(size, resize, aspect)
        cutter = partial(random_crop, size=size, resize=resize, aspect=aspect, flip=flip)
    return _normalising(cutter, size, mean, std)


def test_transform(
    *,
    size: int,
    resize: int,
    aspect: Aspect = "keep",  # noqa: PT028  (not a test: it transforms the test images)
    mean: Sequence[float],
    std: Sequence[float],
) -> ImageTransform:
    """Resizing, center crop of ``size`` by ``size`` pixels, normalisation; nothing random.

    Args:
        size: side of the output in pixels.
        resize: shorter side before the crop, at least ``size``.
        aspect: see :func:`train_transform`.
        mean: of the three channels of the backbone's training images, for values in [0, 1].
        std: of the same, for values in [0, 1].

    Returns:
        RGB image -> ``(3, size, size)`` float32.

    Raises:
        ValueError: an option is out of range.
    """
    _sides(size, resize, aspect)
    return _normalising(partial(center_crop, size=size, resize=resize, aspect=aspect), size, mean, std)


test_transform.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it where it is imported


def _sides(size: int, resize: int, aspect: Aspect) -> None:
    _check.one_of("aspect", aspect, ASPECTS)
    _check.positive("size", size)
    if resize < size:
        raise InputError(
            f"resize must be at least size, got resize {resize} for size {size}; the cut would have a black rim"
        )


def _normalising(cutter: Cutter, size: int, mean: Sequence[float], std: Sequence[float]) -> ImageTransform:
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != 3:
            raise InputError(f"{name} must hold one number per colour, 3, got {len(values)}")
    for value in std:
        _check.positive("std", value)
    return ImageTransform(cutter, size, tuple(mean), tuple(std))

"""From an RGB image to a float32 tensor: the random transform for training, the fixed one for testing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._extras import load
from polyanchor.data import cuts
from polyanchor.data.cuts import Aspect, Cutter

if TYPE_CHECKING:
    from PIL.Image import Image

Transform: TypeAlias = Callable[["Image"], Tensor]
Kind: TypeAlias = Literal["random-resized-crop", "random-crop"]
KINDS = ("random-resized-crop", "random-crop")
ASPECTS = ("keep", "squeeze")


@dataclass(frozen=True)
class ImageTransform:
    """A cut, then normalisation. The cut needs the image's size alone, so that it can be drawn before decoding.

    Attributes:
        cutter: width, height and generator -> the part of the image that is seen.
        size: side of the output in pixels.
        mean: of the three channels, for values in [0, 1].
        std: likewise.
    """

    cutter: Cutter
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: Image) -> Tensor:
        """RGB image -> ``(3, size, size)`` float32; draws from torch's CPU generator."""
        numpy = load("numpy", "train")
        pixels = numpy.array(
            self.cutter(image.width, image.height, None).pixels(image)
        )  # a copy: PIL's is not writable
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

    ``"random-resized-crop"`` is the published Proxy Anchor protocol: a rectangle of a random share and shape
    is stretched to the output. ``"random-crop"`` cuts a square out of the resized image.

    Args:
        size: side of the output in pixels.
        resize: shorter side before the cut, at least ``size``; not used by ``"random-resized-crop"``.
        kind: one of the two above.
        aspect: ``"keep"``: the shorter side becomes ``resize``, and the cut loses what is left and right (or above
            and below); ``"squeeze"``: both sides become ``resize``, so that the whole of an oblong object stays in
            sight. Not used by ``"random-resized-crop"``.
        scale: least and greatest share of the image's area that ``"random-resized-crop"`` takes.
        flip: turn half of the images left to right. Not for characters and digits, which it makes others of.
        mean: of the three channels of the backbone's training images, for values in [0, 1].
        std: likewise.

    Returns:
        RGB image -> ``(3, size, size)`` float32. It draws from torch's CPU generator, or from one that
        :class:`~polyanchor.data.dataset.ItemDataset` gives it.

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
        cutter = partial(cuts.stretched, size=size, scale=(low, high), flip=flip)
    else:
        _sides(size, resize, aspect)
        cutter = partial(cuts.anywhere, size=size, resize=resize, aspect=aspect, flip=flip)
    return _normalising(cutter, size, mean, std)


def test_transform(
    *,
    size: int,
    resize: int,
    aspect: Aspect = "keep",  # noqa: PT028  (not a test: it transforms the test images)
    mean: Sequence[float],
    std: Sequence[float],
) -> ImageTransform:
    """Resized, the middle ``size`` by ``size`` pixels, normalisation; nothing random.

    Args:
        size: side of the output in pixels.
        resize: shorter side before the cut, at least ``size``.
        aspect: see :func:`train_transform`.
        mean: of the three channels of the backbone's training images, for values in [0, 1].
        std: likewise.

    Returns:
        RGB image -> ``(3, size, size)`` float32.

    Raises:
        ValueError: an option is out of range.
    """
    _sides(size, resize, aspect)
    return _normalising(partial(cuts.middle, size=size, resize=resize, aspect=aspect), size, mean, std)


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

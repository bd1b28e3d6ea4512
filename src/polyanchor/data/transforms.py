"""From an RGB image to a float32 tensor: the random transform for training, the fixed one for testing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._extras import load

if TYPE_CHECKING:
    from PIL.Image import Image

Transform: TypeAlias = Callable[["Image"], Tensor]
Kind: TypeAlias = Literal["random-resized-crop", "random-crop"]
KINDS = ("random-resized-crop", "random-crop")
Aspect: TypeAlias = Literal["keep", "squeeze"]
ASPECTS = ("keep", "squeeze")


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
) -> Transform:
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
        RGB image -> ``(3, size, size)`` float32. It draws from torch's CPU generator.

    Raises:
        ValueError: an option is out of range.

    Example:
        >>> from PIL import Image
        >>> turn = train_transform(size=32, resize=40, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> turn(Image.new("RGB", (60, 50))).shape
        torch.Size([3, 32, 32])
    """
    _check.one_of("kind", kind, KINDS)
    v2 = load("torchvision.transforms.v2", "train")
    if kind == "random-resized-crop":
        low, high = scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"scale must be two shares of the area, 0 < least <= greatest <= 1, got {tuple(scale)}")
        _check.positive("size", size)
        steps = [v2.RandomResizedCrop(size, scale=(low, high), antialias=True)]
    else:
        _sides(size, resize)
        steps = [_resized(v2, resize, aspect), v2.RandomCrop(size)]
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    return _composed(steps, mean, std)


def test_transform(
    *,
    size: int,
    resize: int,
    aspect: Aspect = "keep",  # noqa: PT028  (not a test: it transforms the test images)
    mean: Sequence[float],
    std: Sequence[float],
) -> Transform:
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
    _sides(size, resize)
    v2 = load("torchvision.transforms.v2", "train")
    return _composed([_resized(v2, resize, aspect), v2.CenterCrop(size)], mean, std)


test_transform.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it where it is imported


def _resized(v2: Any, resize: int, aspect: Aspect) -> Transform:
    _check.one_of("aspect", aspect, ASPECTS)
    resized: Transform = v2.Resize((resize, resize) if aspect == "squeeze" else resize, antialias=True)
    return resized


def _sides(size: int, resize: int) -> None:
    _check.positive("size", size)
    if resize < size:
        raise ValueError(
            f"resize must be at least size, got resize {resize} for size {size}; the cut would have a black rim"
        )


def _composed(steps: list[Transform], mean: Sequence[float], std: Sequence[float]) -> Transform:
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != 3:
            raise ValueError(f"{name} must hold one number per colour, 3, got {len(values)}")
    for value in std:
        _check.positive("std", value)
    v2 = load("torchvision.transforms.v2", "train")
    composed: Transform = v2.Compose(
        [*steps, v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
    )
    return composed

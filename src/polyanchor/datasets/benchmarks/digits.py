"""The 8 x 8 handwritten digits of scikit-learn, which need no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from polyanchor._optional import load
from polyanchor.datasets.images import ImageArrays
from polyanchor.datasets.items import Items
from polyanchor.datasets.splits import SourceItems


def read() -> SourceItems:
    """List the digits: 1,797 images; split by class, 0 to 4 train and 5 to 9 test."""
    pixels, labels = _arrays()
    names = [f"{label}/{row:04d}" for row, label in enumerate(labels)]
    class_names = {digit: str(digit) for digit in range(10)}
    return SourceItems("digits", Items(ImageArrays(pixels, names), torch.tensor(labels), class_names))


def write_digits(folder: Path) -> int:
    """Write the digits as PNG files, one folder per class, which ``folder:`` reads.

    Args:
        folder: created if it does not exist; files of the same names are replaced.

    Returns:
        Number of images written.
    """
    images = load("PIL.Image", "train")
    pixels, labels = _arrays()
    for row, label in enumerate(labels):
        file = folder / str(label) / f"{row:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        images.fromarray(pixels[row]).save(file)
    return len(labels)


def _arrays() -> tuple[Any, list[int]]:
    """(1797, 8, 8) uint8 pixels and the digit each shows."""
    bunch = load("sklearn.datasets", "train").load_digits()
    pixels = (bunch.images * 255 / 16).round().astype("uint8")  # values are 0 to 16
    return pixels, [int(label) for label in bunch.target]

"""Small copies of images, encoded."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch

from polyanchor._extras import load
from polyanchor.data.decoding import in_threads
from polyanchor.data.images import Images

SIDE = 128
"""Longer side in pixels; smaller images stay as they are."""


def thumbnails(images: Images, rows: Sequence[int]) -> list[bytes]:
    """JPEG files, read by as many threads as torch computes with.

    Args:
        images: where to read.
        rows: row numbers.

    Raises:
        BadImageError: an image cannot be read.
    """
    pil = load("PIL.Image", "train")

    def small(row: int) -> bytes:
        image = images.read(row, lambda width, height: max(width, height) / SIDE)
        image.thumbnail((SIDE, SIDE), pil.Resampling.BICUBIC)
        image.save(encoded := io.BytesIO(), "JPEG", quality=90)
        return encoded.getvalue()

    return in_threads(small, rows, torch.get_num_threads())

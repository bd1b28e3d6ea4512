"""Whether data of the same names is still the same data."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from polyanchor.data.images import ImageArrays, ImageBytes, ImageFiles, ImageRows, Images
from polyanchor.data.items import Items


def contents(items: Items) -> str:
    """Hexadecimal digest of what the items hold, in order.

    Of vectors and pixels in memory it is a digest of every value. Of encoded images it is one of their sizes in bytes,
    which another image hardly ever shares: a file is looked at and not read, which costs no more than opening each of
    them once, as every epoch does. A file that changed and kept its size is not noticed.

    Example:
        >>> labels = torch.tensor([0, 1])
        >>> contents(Items(torch.eye(2), labels)) == contents(Items(2 * torch.eye(2), labels))
        False
    """
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(items.inputs, Tensor):
        digest.update(items.inputs.contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()
    for row in range(len(items)):
        stamp = _stamp(items.inputs, row)
        digest.update(b"%d %d " % (row, len(stamp)) + stamp)
    return digest.hexdigest()


def _stamp(images: Images, row: int) -> bytes:
    """Tells an image from another in its place; empty where there is none, or no way to tell without decoding it."""
    if isinstance(images, ImageRows):
        return _stamp(images.images, int(images.rows[row]))
    if isinstance(images, ImageFiles):
        try:
            return b"%d" % (images.root / images.paths[row]).stat().st_size
        except OSError:
            return b""
    if isinstance(images, ImageArrays):
        pixels: bytes = images.pixels[row].tobytes()
        return pixels
    if isinstance(images, ImageBytes):
        cell = images.cells[row]
        held = cell.as_buffer() if hasattr(cell, "as_buffer") else cell  # of Arrow's, without a copy
        return b"" if held is None else b"%d" % len(memoryview(held))
    return b""

"""The images of a batch as one tensor, decoded by as many threads as torch computes with.

Decoding and resizing run outside of Python's lock, opening a file and the rest inside, so that two threads take about
three quarters of the time of one. A worker process has one thread, and decodes with that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._extras import load
from polyanchor.data.cuts import Cut
from polyanchor.data.images import BadImageError, Images
from polyanchor.data.transforms import ImageTransform

T = TypeVar("T")
R = TypeVar("R")
_CHUNK = 8  # images that a thread takes at once: few enough that no thread waits long for the last one


def decoded(
    images: Images,
    transform: ImageTransform,
    rows: Sequence[int],
    seeds: Sequence[int],
    *,
    threads: int,
) -> tuple[Tensor, list[BadImageError | None]]:
    """Read, cut and normalise images.

    Args:
        images: where to read.
        transform: what to make of each.
        rows: B row numbers.
        seeds: B numbers; an image's cut follows from its own alone, whatever thread decodes it.
        threads: how many of them decode.

    Returns:
        The images that could be read, ``(B', 3, size, size)`` float32 channels-last, and for each of ``rows`` the
        error or None.
    """
    threads = _check.count("threads", threads)
    pixels = load("numpy", "train").empty((len(rows), transform.size, transform.size, 3), "uint8")

    def fill(place: int) -> BadImageError | None:
        try:
            pixels[place] = _cut_out(images, transform, rows[place], seeds[place])
        except BadImageError as error:
            return error
        return None

    errors = in_threads(fill, range(len(rows)), threads)
    if any(errors):
        pixels = pixels[[error is None for error in errors]]
    return transform.normalised(torch.from_numpy(pixels)), errors


def _cut_out(images: Images, transform: ImageTransform, row: int, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)  # its own: torch's is shared by all threads
    cuts: list[Cut] = []

    def look(width: int, height: int) -> float:
        cuts.append(transform.cutter(width, height, generator))
        return cuts[-1].reduction

    image = images.read(row, look)
    return cuts[-1].pixels(image)


def in_threads(function: Callable[[T], R], values: Sequence[T], threads: int) -> list[R]:
    """``[function(value) for value in values]``, in that order; with one thread, in the caller's own.

    Example:
        >>> in_threads(abs, [-3, 2, -1], threads=2)
        [3, 2, 1]
    """
    if threads == 1:
        return [function(value) for value in values]
    chunks = [values[begin : begin + _CHUNK] for begin in range(0, len(values), _CHUNK)]

    def do(chunk: Iterable[T]) -> list[R]:
        return [function(value) for value in chunk]

    # A pool lives for one batch, well under a millisecond: a process that forks has none to lose.
    with ThreadPoolExecutor(threads) as pool:
        return [result for results in pool.map(do, chunks) for result in results]

"""Contact sheets: rows of thumbnails with words beside them; queries with what they found."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from polyanchor._errors import InputError
from polyanchor._optional import load
from polyanchor.datasets.images import Images, in_threads
from polyanchor.datasets.items import Items
from polyanchor.search.exact import search
from polyanchor.types import Embeddings

if TYPE_CHECKING:
    from PIL.Image import Image


THUMBNAIL, GAP, MARGIN, TITLE = 80, 4, 190, 30
"""Pixels: side of a thumbnail, space between two, column of words, line of the title."""
FRAME = 4
COLOURS = {"right": "#1a7f37", "wrong": "#cf222e"}
Mark = Literal["", "right", "wrong"]


@dataclass(frozen=True)
class Line:
    """A row of a sheet.

    Attributes:
        words: lines of text on the left.
        rows: row numbers of the items whose images it shows.
        marks: for each of them its frame; none if empty.
    """

    words: Sequence[str]
    rows: Sequence[int]
    marks: Sequence[Mark] = ()


def sheet(items: Items, title: str, lines: Sequence[Line]) -> Image:
    """Thumbnails of 80 pixels on the longer side, in rows.

    A right one has a green frame; a wrong one a red frame with a filled corner, so that colour is not all that tells
    them apart.

    Args:
        items: images, not vectors.
        title: a line above.
        lines: the rows.

    Returns:
        RGB image.

    Raises:
        BadImageError: an image cannot be read.
        ValueError: the items are vectors.
    """
    inputs = items.inputs
    if isinstance(inputs, torch.Tensor):
        raise InputError("a contact sheet needs items that are images, got vectors; use their names")
    pil, ops = load("PIL.Image", "train"), load("PIL.ImageOps", "train")
    side = THUMBNAIL + GAP
    width = MARGIN + max(len(line.rows) for line in lines) * side + GAP
    drawn = pil.new("RGB", (width, TITLE + len(lines) * side + GAP), "white")
    write_lines(drawn, (8, 8), [title])
    for number, line in enumerate(lines):
        top = TITLE + number * side
        write_lines(drawn, (8, top + 8), line.words)
        for column, row in enumerate(line.rows):
            place = MARGIN + column * side, top
            drawn.paste(ops.pad(inputs.read(row), (THUMBNAIL, THUMBNAIL), color="white"), place)
            if line.marks and line.marks[column]:
                _frame(drawn, place, line.marks[column])
    return drawn


def query_sheet(items: Items, found: Embeddings, queries: Sequence[int], *, k: int, title: str) -> Image:
    """Some queries, each searched among all other items: the query first, then its k nearest, right or wrong.

    Args:
        items: N images.
        found: their vectors, row for row.
        queries: row numbers.
        k: neighbours to show; all others if there are fewer.
        title: a line above.
    """
    k = min(k, len(items) - 1)
    near = search(found.vectors[list(queries)], found.vectors, k + 1).ids
    lines = []
    for query, ids in zip(queries, near.tolist(), strict=True):
        others = [row for row in ids if row != query][:k]  # by number: a copy of the query may come before it
        right = [bool(found.labels[row] == found.labels[query]) for row in others]
        label = int(found.labels[query])
        words = [found.class_names.get(label, f"class {label}")[:28], f"{sum(right)} of {k} are of the class"]
        lines.append(Line(words, [query, *others], ["", *("right" if hit else "wrong" for hit in right)]))
    return sheet(items, title, lines)


def _frame(drawn: Image, place: tuple[int, int], mark: Mark) -> None:
    draw, (left, top), colour = load("PIL.ImageDraw", "train").Draw(drawn), place, COLOURS[mark]
    draw.rectangle((left, top, left + THUMBNAIL - 1, top + THUMBNAIL - 1), outline=colour, width=FRAME)
    if mark == "wrong":
        draw.polygon([(left, top), (left + 18, top), (left, top + 18)], fill=colour)


def write_lines(drawn: Image, place: tuple[int, int], lines: Sequence[str]) -> None:
    """Black words, 17 pixels for a line."""
    draw = load("PIL.ImageDraw", "train").Draw(drawn)
    font = load("PIL.ImageFont", "train").load_default(13)
    for number, line in enumerate(lines):
        draw.text((place[0], place[1] + 17 * number), line, fill="black", font=font)


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

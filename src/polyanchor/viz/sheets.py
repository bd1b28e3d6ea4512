"""Thumbnails, one by one and in sheets: rows of images with text beside and below them."""

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
"""Pixels: side of a thumbnail, space between two, column of text on the left, line of the title."""
FRAME = 4
COLOURS = {"right": "#1a7f37", "wrong": "#cf222e"}
Mark = Literal["", "right", "wrong"]
_FONT, _LINE = 13, 17  # pixels: size of the font, height of a line
_JPEG_SIDE = 128


@dataclass(frozen=True)
class Cell:
    """One image of a sheet.

    Attributes:
        image: as large as the sheet's cells, see :func:`padded`; None: a grey field that reads "no image".
        words: lines of text below it; cut off at its width.
        mark: its frame.
    """

    image: Image | None
    words: Sequence[str] = ()
    mark: Mark = ""


@dataclass(frozen=True)
class Line:
    """A row of a sheet of items.

    Attributes:
        words: lines of text on the left.
        rows: row numbers of the items whose images it shows.
        marks: for each of them its frame; none if empty.
    """

    words: Sequence[str]
    rows: Sequence[int]
    marks: Sequence[Mark] = ()


def grid(
    lines: Sequence[tuple[Sequence[str], Sequence[Cell]]],
    *,
    side: int,
    corner: tuple[int, int] = (GAP, GAP),
    title: str = "",
    below: int = 0,
    apart: int = GAP,
) -> Image:
    """Rows of square cells on white.

    A right cell has a green frame; a wrong one a red frame with a filled corner, so that colour is not all that tells
    them apart.

    Args:
        lines: for each row the text on its left and its cells.
        side: of a cell in pixels.
        corner: left and upper edge of the first cell; the text of the rows and the title stand in this margin.
        title: a line above.
        below: pixels for the text below a cell.
        apart: space between the first cell of a row and the second.

    Returns:
        RGB image.
    """
    left, top = corner
    step, across = side + GAP, max((len(cells) for _, cells in lines), default=0)
    size = left + across * step + apart, top + len(lines) * (step + below) + GAP
    canvas: Image = load("PIL.Image", "train").new("RGB", size, "white")
    write_lines(canvas, (8, 8), [title])
    for number, (words, cells) in enumerate(lines):
        y = top + number * (step + below)
        write_lines(canvas, (8, y + 8), words)
        for column, cell in enumerate(cells):
            x = left + column * step + (apart - GAP if column else 0)
            _draw(canvas, x, y, cell, side)
    return canvas


def _draw(canvas: Image, x: int, y: int, cell: Cell, side: int) -> None:
    draw = load("PIL.ImageDraw", "train").Draw(canvas)
    if cell.image is None:
        draw.rectangle((x, y, x + side - 1, y + side - 1), fill="#e0e0e0")
        write_lines(canvas, (x + 8, y + side // 2 - 8), ["no image"])
    else:
        canvas.paste(cell.image, (x, y))
    write_lines(canvas, (x, y + side + 2), [_fitting(line, side) for line in cell.words])
    if cell.mark:
        colour = COLOURS[cell.mark]
        draw.rectangle((x, y, x + side - 1, y + side - 1), outline=colour, width=FRAME)
        if cell.mark == "wrong":
            draw.polygon([(x, y), (x + 18, y), (x, y + 18)], fill=colour)


def sheet(items: Items, title: str, lines: Sequence[Line]) -> Image:
    """Thumbnails of 80 pixels on the longer side, in rows; see :func:`grid`.

    Args:
        items: images, not vectors.
        title: a line above.
        lines: the rows.

    Raises:
        BadImageError: an image cannot be read.
        ValueError: the items are vectors.
    """
    images = items.inputs
    if isinstance(images, torch.Tensor):
        raise InputError("a contact sheet needs items that are images, got vectors; use their names")
    drawn = [
        (line.words, [Cell(padded(images.read(row), THUMBNAIL), mark=mark) for row, mark in _marked(line)])
        for line in lines
    ]
    return grid(drawn, side=THUMBNAIL, corner=(MARGIN, TITLE), title=title)


def _marked(line: Line) -> list[tuple[int, Mark]]:
    return list(zip(line.rows, line.marks or [""] * len(line.rows), strict=True))


def query_sheet(items: Items, embeddings: Embeddings, queries: Sequence[int], *, k: int, title: str) -> Image:
    """Some queries, each searched among all other items: the query first, then its k nearest, right or wrong.

    Args:
        items: N images.
        embeddings: their vectors, row for row.
        queries: row numbers.
        k: neighbours to show; all others if there are fewer.
        title: a line above.
    """
    k, labels = min(k, len(items) - 1), embeddings.labels
    near = search(embeddings.vectors[list(queries)], embeddings.vectors, k + 1).ids
    lines = []
    for query, ids in zip(queries, near.tolist(), strict=True):
        others = [row for row in ids if row != query][:k]  # by number: a copy of the query may come before it
        right = [bool(labels[row] == labels[query]) for row in others]
        name = embeddings.class_names.get(int(labels[query]), f"class {int(labels[query])}")
        words = [name[:28], f"{sum(right)} of {k} are of the class"]
        lines.append(Line(words, [query, *others], ["", *("right" if hit else "wrong" for hit in right)]))
    return sheet(items, title, lines)


def write_lines(canvas: Image, corner: tuple[int, int], lines: Sequence[str], *, scale: int = 1) -> None:
    """Black text, 17 pixels for a line, times ``scale``."""
    draw = load("PIL.ImageDraw", "train").Draw(canvas)
    font = load("PIL.ImageFont", "train").load_default(_FONT * scale)
    for number, line in enumerate(lines):
        draw.text((corner[0], corner[1] + _LINE * scale * number), line, fill="black", font=font)


def _fitting(line: str, width: int) -> str:
    font = load("PIL.ImageFont", "train").load_default(_FONT)
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"


def padded(image: Image, side: int) -> Image:
    """The whole image in a white square of ``side`` pixels."""
    square: Image = load("PIL.ImageOps", "train").pad(image, (side, side), color="white")
    return square


def reduced(image: Image, side: int, form: str, **options: int) -> bytes:
    """An encoded image of at most ``side`` pixels on the longer side; a smaller one keeps its size."""
    image.thumbnail((side, side), load("PIL.Image", "train").Resampling.BICUBIC)
    return encoded(image, form, **options)


def encoded(image: Image, form: str, **options: int) -> bytes:
    """The content of an image file, in a format that Pillow writes."""
    image.save(content := io.BytesIO(), form, **options)
    return content.getvalue()


def thumbnails(images: Images, rows: Sequence[int]) -> list[bytes]:
    """JPEG files of at most 128 pixels, read by as many threads as torch computes with.

    Args:
        images: where to read.
        rows: row numbers.

    Raises:
        BadImageError: an image cannot be read.
    """

    def thumbnail(row: int) -> bytes:
        image = images.read(row, lambda width, height: max(width, height) / _JPEG_SIDE)
        return reduced(image, _JPEG_SIDE, "JPEG", quality=90)

    return in_threads(thumbnail, rows, torch.get_num_threads())

"""A picture of what was found: a row for each query, the query first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from polyanchor._errors import InputError
from polyanchor._io import replacing
from polyanchor._optional import load
from polyanchor.datasets.images import BadImageError
from polyanchor.index.ingest import Pictures
from polyanchor.index.types import Hit
from polyanchor.viz.sheets import GAP, write_lines

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE, WORDS, APART = 120, 40, 16
"""Pixels: side of a thumbnail, two lines of words below it, space between the query and its hits."""


def picture(queries: Sequence[str], hits: Sequence[Sequence[Hit]]) -> Image:
    """The queries, each with its hits beside it, best first.

    Below a hit stand its score and its label (or, without one, the name of its file). Images are scaled to 120 pixels
    on the longer side; where there is none to read, the place says so.

    Args:
        queries: paths, or names where a query is no file.
        hits: of each query.

    Returns:
        RGB image.
    """
    pictures, across = Pictures(), max((len(row) for row in hits), default=0)
    width = GAP + SIDE + APART + across * (SIDE + GAP)
    sheet = load("PIL.Image", "train").new("RGB", (width, len(hits) * (SIDE + WORDS + GAP) + GAP), "white")
    for line, (query, row) in enumerate(zip(queries, hits, strict=True)):
        top = GAP + line * (SIDE + WORDS + GAP)
        _place(sheet, GAP, top, _thumbnail(pictures, query), ["query", _short(query)])
        for column, hit in enumerate(row):
            left = GAP + SIDE + APART + column * (SIDE + GAP)
            words = [f"{hit.score:.3f}", hit.label or _short(hit.path or f"id {hit.id}")]
            _place(sheet, left, top, _thumbnail(pictures, hit.path), words)
    return sheet


def write_picture(queries: Sequence[str], hits: Sequence[Sequence[Hit]], file: Path) -> None:
    """:func:`picture` in a file, in place of what is there.

    Raises:
        ValueError: the file's suffix is not that of a format for pictures.
    """
    known = load("PIL.Image", "train").registered_extensions()
    form = known.get(file.suffix.lower())
    if form is None:
        raise InputError(f"--picture must end in .png or .jpg, got {file}")
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as unfinished:
        picture(queries, hits).save(unfinished, form)


def _place(sheet: Image, left: int, top: int, thumbnail: Image, words: Sequence[str]) -> None:
    sheet.paste(thumbnail, (left, top))
    write_lines(sheet, (left, top + SIDE + 2), [_fitting(line) for line in words])


def _thumbnail(pictures: Pictures, path: str | None) -> Image:
    size = (SIDE, SIDE)
    try:
        if path is None:
            raise BadImageError
        return load("PIL.ImageOps", "train").pad(pictures.read(path), size, color="white")
    except BadImageError:
        empty: Image = load("PIL.Image", "train").new("RGB", size, "#e0e0e0")
        write_lines(empty, (8, SIDE // 2 - 8), ["no image"])
        return empty


def _short(path: str) -> str:
    """The name of the file."""
    return path.rpartition("/")[2]


def _fitting(words: str) -> str:
    """As much as fits below a thumbnail."""
    font = load("PIL.ImageFont", "train").load_default(13)
    if font.getlength(words) <= SIDE:
        return words
    while words and font.getlength(words + "…") > SIDE:
        words = words[:-1]
    return words + "…"

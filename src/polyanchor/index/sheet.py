"""A picture of search results: a row for each query, the query first."""

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
from polyanchor.viz.sheets import Cell, grid, padded

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE, WORDS, APART = 120, 40, 16
"""Pixels: side of a thumbnail, two lines of text below it, space between the query and its hits."""


def picture(queries: Sequence[str], hits: Sequence[Sequence[Hit]]) -> Image:
    """The queries, each with its hits beside it, best first.

    Below a hit stand its score and its label (or, without one, the name of its file). Images are scaled to 120 pixels
    on the longer side; a grey field stands for one that cannot be read.

    Args:
        queries: paths, or names where a query is no file.
        hits: of each query.

    Returns:
        RGB image.
    """
    pictures = Pictures()

    def cell(path: str | None, words: Sequence[str]) -> Cell:
        try:
            return Cell(None if path is None else padded(pictures.read(path), SIDE), words)
        except BadImageError:
            return Cell(None, words)

    lines = [
        [cell(query, ["query", _file_name(query)])]
        + [cell(hit.path, [f"{hit.score:.3f}", hit.label or _file_name(hit.path or f"id {hit.id}")]) for hit in row]
        for query, row in zip(queries, hits, strict=True)
    ]
    return grid([((), cells) for cells in lines], side=SIDE, below=WORDS, apart=APART)


def write_picture(queries: Sequence[str], hits: Sequence[Sequence[Hit]], file: Path) -> None:
    """Write :func:`picture` to a file, replaced in one step.

    Raises:
        ValueError: the file's suffix is not that of an image format.
    """
    form = load("PIL.Image", "train").registered_extensions().get(file.suffix.lower())
    if form is None:
        raise InputError(f"--picture must end in .png or .jpg, got {file}")
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as unfinished:
        picture(queries, hits).save(unfinished, form)


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]

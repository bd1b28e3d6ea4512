"""A picture of a class's local centres: a row of nearest images for each centre in use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from polyanchor._extras import load
from polyanchor.analysis.proxies import ClassCentres, ProxyStudy
from polyanchor.data.items import Items

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL, GAP, MARGIN, TITLE = 80, 4, 190, 30
"""Pixels: side of a thumbnail, space between two, column of words, line of the title."""


def nearest_rows(study: ProxyStudy, items: Items, one: ClassCentres, images: int) -> dict[int, list[int]]:
    """Rows of the items nearest to each centre in use, of those that have no nearer centre.

    Args:
        study: of ``items``, row for row.
        items: N.
        one: the class.
        images: at most so many rows for a centre.

    Returns:
        Centre -> row numbers, nearest first; the centre with most items first.
    """
    order = sorted((k for k, count in enumerate(one.counts) if count), key=lambda k: -one.counts[k])
    of_class, found = items.labels == one.class_id, {}
    for centre in order:
        rows = (of_class & (study.centre == centre)).nonzero()[:, 0]
        nearest = study.similarity[rows].sort(descending=True, stable=True).indices
        found[centre] = rows[nearest[:images]].tolist()
    return found


def contact_sheet(study: ProxyStudy, items: Items, one: ClassCentres, *, images: int = 8) -> Image:
    """The nearest images of each centre in use, with its number of items and its usage beside them.

    Images are scaled to 80 pixels on the longer side. Where sub-classes are known, the most frequent one of
    the centre's items is named with its share.

    Args:
        study: of ``items``, row for row.
        items: images, not vectors.
        one: the class.
        images: at most so many in a row.

    Returns:
        RGB image.

    Raises:
        BadImageError: an image cannot be read.
        ValueError: the items are vectors.
    """
    inputs = items.inputs
    if isinstance(inputs, torch.Tensor):
        raise ValueError("a contact sheet needs items that are images, got vectors; use the names of nearest_rows")
    pil, ops = load("PIL.Image", "train"), load("PIL.ImageOps", "train")
    rows = nearest_rows(study, items, one, images)
    width = MARGIN + max(map(len, rows.values())) * (THUMBNAIL + GAP) + GAP
    sheet = pil.new("RGB", (width, TITLE + len(rows) * (THUMBNAIL + GAP) + GAP), "white")
    title = f"{one.name}: {sum(one.counts)} items, {one.in_use} of {len(one.counts)} centres in use"
    _write(sheet, (8, 8), [f"{title}, effective number {one.effective_distinct:.1f}"])
    for line, (centre, nearest) in enumerate(rows.items()):
        top = TITLE + line * (THUMBNAIL + GAP)
        _write(sheet, (8, top + 8), _words(study, items, one, centre))
        for column, row in enumerate(nearest):
            thumbnail = ops.pad(inputs.read(row), (THUMBNAIL, THUMBNAIL), color="white")
            sheet.paste(thumbnail, (MARGIN + column * (THUMBNAIL + GAP), top))
    return sheet


def _words(study: ProxyStudy, items: Items, one: ClassCentres, centre: int) -> list[str]:
    lines = [f"centre {centre}", f"nearest of {one.counts[centre]} items", f"usage {one.usage[centre]:.1%}"]
    if items.sublabels is not None:
        own = items.sublabels[(items.labels == one.class_id) & (study.centre == centre)]
        found, counts = own.unique(return_counts=True)
        most = int(counts.argmax())
        lines.append(f"sub-class {int(found[most])}: {int(counts[most]) / len(own):.0%}")
    return lines


def _write(sheet: Image, place: tuple[int, int], lines: Sequence[str]) -> None:
    draw = load("PIL.ImageDraw", "train").Draw(sheet)
    font = load("PIL.ImageFont", "train").load_default(13)
    for number, line in enumerate(lines):
        draw.text((place[0], place[1] + 17 * number), line, fill="black", font=font)

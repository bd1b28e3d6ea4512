"""A picture of a class's local centres: a row of nearest images for each centre in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polyanchor.analysis.proxies import ClassCentres, ProxyStudy
from polyanchor.data.items import Items
from polyanchor.evaluation.sheets import Line, sheet

if TYPE_CHECKING:
    from PIL.Image import Image


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

    Where sub-classes are known, the most frequent one of the centre's items is named with its share.

    Args:
        study: of ``items``, row for row.
        items: images, not vectors.
        one: the class.
        images: at most so many in a row.

    Returns:
        RGB image, see :func:`polyanchor.evaluation.sheets.sheet`.

    Raises:
        BadImageError: an image cannot be read.
        ValueError: the items are vectors.
    """
    title = f"{one.name}: {sum(one.counts)} items, {one.in_use} of {len(one.counts)} centres in use"
    lines = [
        Line(_words(study, items, one, centre), nearest)
        for centre, nearest in nearest_rows(study, items, one, images).items()
    ]
    return sheet(items, f"{title}, effective number {one.effective_distinct:.1f}", lines)


def _words(study: ProxyStudy, items: Items, one: ClassCentres, centre: int) -> list[str]:
    lines = [f"centre {centre}", f"nearest of {one.counts[centre]} items", f"usage {one.usage[centre]:.1%}"]
    if items.sublabels is not None:
        own = items.sublabels[(items.labels == one.class_id) & (study.centre == centre)]
        found, counts = own.unique(return_counts=True)
        most = int(counts.argmax())
        lines.append(f"sub-class {int(found[most])}: {int(counts[most]) / len(own):.0%}")
    return lines

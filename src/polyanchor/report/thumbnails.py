"""Thumbnails inside a page: some on their own, ten thousand in a few sprites."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyanchor._optional import load
from polyanchor._progress import progress
from polyanchor.datasets.images import Images
from polyanchor.report.data import ReportData, defined
from polyanchor.runs.embed_parts import Rows
from polyanchor.viz.sheets import encoded, padded, reduced, thumbnails

Place = tuple[str, int]
"""An item: the part of the data and the row number in it."""
SIDES = 112, 96, 80, 64, 56, 48, 40, 32, 24, 16
"""Pixels: sides of a cell, the largest that the budget allows is taken."""
ACROSS = 32
"""Cells in a row and in a column of a sprite: a browser decodes one at a time."""
BUDGET = 7_500_000
"""Bytes of all sprites; in the page they are a third more."""
_AT_ONCE, _LEAST_PER_PIXEL = 256, 0.15
_QUALITY, _SPRITE_QUALITY, _SIDE = 78, 62, 112


@dataclass(frozen=True)
class Sprites:
    """Thumbnails in order, :data:`ACROSS` x :data:`ACROSS` of them in each file.

    Attributes:
        side: of a cell in pixels.
        files: WebP.
    """

    side: int
    files: tuple[bytes, ...]


def read_cells(wanted: Iterable[tuple[Rows, Iterable[int]]]) -> dict[Place, bytes]:
    """Each image once, as a JPEG file of at most 128 pixels; a progress bar goes to stderr.

    Args:
        wanted: items and row numbers; vectors give nothing.

    Raises:
        BadImageError: an image cannot be read.
    """
    parts: dict[str, tuple[Images, dict[int, None]]] = {}
    for rows, numbers in wanted:
        if not isinstance(rows.items.inputs, Tensor):
            parts.setdefault(rows.split, (rows.items.inputs, {}))[1].update(dict.fromkeys(numbers))
    found: dict[Place, bytes] = {}
    with progress("thumbnails", total=sum(len(rows) for _, rows in parts.values()), unit="images") as advance:
        for split, (images, chosen) in parts.items():
            for start in range(0, len(chosen), _AT_ONCE):
                piece = list(chosen)[start : start + _AT_ONCE]
                found |= zip(((split, number) for number in piece), thumbnails(images, piece), strict=True)
                advance(len(piece))
    return found


def sprites(cells: Sequence[bytes], *, budget: int = BUDGET) -> Sprites:
    """Put thumbnails into sprites, as large as the budget allows.

    Args:
        cells: encoded images.
        budget: bytes of all files; if even the smallest cells take more, those are given all the same.

    Example:
        >>> from PIL import Image
        >>> Image.new("RGB", (20, 10)).save(cell := io.BytesIO(), "PNG")
        >>> made = sprites([cell.getvalue()] * 3)
        >>> made.side, len(made.files)
        (112, 1)
    """
    possible = [side for side in SIDES if len(cells) * side * side * _LEAST_PER_PIXEL <= budget] or [SIDES[-1]]
    for side in possible:
        files = [_sprite(cells[start : start + ACROSS**2], side) for start in range(0, len(cells), ACROSS**2)]
        if sum(map(len, files)) <= budget:
            break
    return Sprites(side, tuple(files))


def _sprite(cells: Sequence[bytes], side: int) -> bytes:
    pil = load("PIL.Image", "train")
    down = -(-len(cells) // ACROSS)
    sheet = pil.new("RGB", (min(len(cells), ACROSS) * side, down * side), "white")
    for number, cell in enumerate(cells):
        with pil.open(io.BytesIO(cell)) as image:
            sheet.paste(padded(image, side), (number % ACROSS * side, number // ACROSS * side))
    return encoded(sheet, "WEBP", quality=_SPRITE_QUALITY, method=4)


def inline(cell: bytes) -> str:
    """One thumbnail as a ``data:`` address, of at most 112 pixels."""
    with load("PIL.Image", "train").open(io.BytesIO(cell)) as image:
        return f"data:image/webp;base64,{text(reduced(image, _SIDE, 'WEBP', quality=_QUALITY, method=4))}"


def text(content: bytes) -> str:
    """Bytes as base64, which is safe anywhere in HTML."""
    return base64.b64encode(content).decode("ascii")


@dataclass(frozen=True)
class Hit:
    """One neighbour of a query.

    Attributes:
        row: in the gallery.
        right: whether it is of the query's class.
        similarity: cosine to the query.
    """

    row: int
    right: bool
    similarity: float


@dataclass(frozen=True)
class Shown:
    """A query and what it found.

    Attributes:
        row: of the query.
        ndcg: its value.
        first_right: rank of the first item of its class in the whole gallery, from 1.
        hits: its nearest neighbours, best first.
    """

    row: int
    ndcg: float
    first_right: int
    hits: tuple[Hit, ...]


def worst(ndcg: Tensor, mrr: Tensor, labels: Tensor, most: int) -> list[int]:
    """Rows of the queries with the lowest nDCG; of equals, of which there are many at 0, the later first hit is worse.

    At most one of each class, until all classes had one: the eight worst queries are often eight of one class.

    Args:
        ndcg: ``(Q,)`` floating, NaN where undefined.
        mrr: ``(Q,)``, one through the rank of the first hit.
        labels: ``(Q,)`` int64.
        most: at most so many.

    Example:
        >>> ndcg, mrr = torch.tensor([0.0, 0.0, 0.5, 0.9]), torch.tensor([0.1, 0.05, 0.5, 1.0])
        >>> worst(ndcg, mrr, torch.tensor([4, 4, 4, 7]), 3)
        [1, 3, 0]
    """
    rows = defined(ndcg).tolist()
    order = sorted(rows, key=lambda row: (float(ndcg[row]), float(mrr[row]), row))
    return _one_of_each(order, labels, most)


def typical(ndcg: Tensor, labels: Tensor, most: int) -> list[int]:
    """Rows of the queries whose nDCG lies nearest to the median, at most one of each class until all had one.

    Of equally near ones an even choice over the data is taken, not the first.

    Args:
        ndcg: ``(Q,)`` floating, NaN where undefined.
        labels: ``(Q,)`` int64.
        most: at most so many.
    """
    rows = defined(ndcg)
    if not len(rows):
        return []
    distance = (ndcg[rows] - ndcg[rows].median()).abs()
    mixed = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    order = rows[mixed[distance[mixed].argsort(stable=True)]]
    return _one_of_each(order.tolist(), labels, most)


def _one_of_each(order: Iterable[int], labels: Tensor, most: int) -> list[int]:
    """In rounds: the first of each class, then the second of each, ..., in the order that came."""
    rounds: dict[int, int] = {}
    placed = []
    for place, row in enumerate(order):
        label = int(labels[row])
        rounds[label] = rounds.get(label, -1) + 1
        placed.append((rounds[label], place, row))
    return [row for _, _, row in sorted(placed)[:most]]


def with_hits(opened: ReportData, rows: Iterable[int]) -> list[Shown]:
    """The queries of some rows with their neighbours, right or wrong."""
    labels, found = opened.queries.embeddings.labels, opened.searched.embeddings.labels
    shown = []
    for row in rows:
        ids, scores = opened.neighbours.ids[row].tolist(), opened.neighbours.scores[row].tolist()
        hits = tuple(
            Hit(near, bool(found[near] == labels[row]), score) for near, score in zip(ids, scores, strict=True)
        )
        first = round(1 / float(opened.report.per_query["mrr"][row]))
        shown.append(Shown(row, float(opened.ndcg[row]), first, hits))
    return shown

"""Thumbnails inside a page: single ones, and ten thousand in a few sprites."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from polyanchor._optional import load
from polyanchor._progress import progress
from polyanchor.datasets.images import Images
from polyanchor.runs.embed_parts import Rows
from polyanchor.viz.sheets import encoded, padded, reduced, thumbnails

Place = tuple[str, int]
"""An item: part of the data, row number in it."""
SIDES = 112, 96, 80, 64, 56, 48, 40, 32, 24, 16
"""Sides of a cell in pixels; the largest that the budget allows is taken."""
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


def read_cells(places: Iterable[tuple[Rows, Iterable[int]]]) -> dict[Place, bytes]:
    """Each image once, as a JPEG file of at most 128 pixels; vectors give nothing. A progress bar goes to stderr.

    Raises:
        BadImageError: an image cannot be read.
    """
    parts: dict[str, tuple[Images, dict[int, None]]] = {}
    for rows, numbers in places:
        if not isinstance(rows.items.inputs, Tensor):
            parts.setdefault(rows.split, (rows.items.inputs, {}))[1].update(dict.fromkeys(numbers))
    cells: dict[Place, bytes] = {}
    with progress("thumbnails", total=sum(len(rows) for _, rows in parts.values()), unit="images") as advance:
        for split, (images, chosen) in parts.items():
            for start in range(0, len(chosen), _AT_ONCE):
                batch = list(chosen)[start : start + _AT_ONCE]
                cells |= zip(((split, number) for number in batch), thumbnails(images, batch), strict=True)
                advance(len(batch))
    return cells


def sprites(cells: Sequence[bytes], *, budget: int = BUDGET) -> Sprites:
    """Put encoded thumbnails into sprites, as large as the budget in bytes allows, or of the smallest cells.

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

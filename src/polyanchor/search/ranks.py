"""Where one item per row stands in the row's whole ranking, counted in square tiles of scores, both ways.

Equal scores stand in order of their items, so tiles left of the item's own count what is equal to it, tiles right of
it do not, and in its own the equal ones are looked at one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polyanchor.search.lists import by_block
from polyanchor.search.masks import column_counts, row_counts
from polyanchor.search.scores import parts


@dataclass(frozen=True)
class Targets:
    """The item of each row whose rank is wanted.

    Attributes:
        ids: ``(N,)`` int64, -1 for none.
        scores: ``(N,)``, what the row's product with the item gives.
    """

    ids: Tensor
    scores: Tensor


class Counts:
    """How many items stand before the targets, for those that are not above their rows' floors.

    Attributes:
        deep: ``(blocks, side)`` bool, rows that are counted.
        before: ``(blocks, side)`` int64, items before the target, complete when the row has met all tiles.
        differs: ``(blocks, side)`` bool, rows where a tile gave the target another score: their counts are void.
    """

    def __init__(self, targets: Targets, floor: Tensor, side: int) -> None:
        deep = (targets.ids >= 0) & (targets.scores <= floor) & floor.isfinite()
        self.side, self.deep = side, by_block(deep, side, False)
        self._or_equal = by_block(targets.scores.masked_fill(~deep, torch.inf), side, torch.inf)
        self._above = self._or_equal.nextafter(torch.full_like(self._or_equal, torch.inf))
        self._block = by_block(targets.ids.div(side, rounding_mode="floor").masked_fill(~deep, -1), side, -1)
        self._place = by_block(targets.ids.remainder(side), side, 0)
        self.before, self.differs = torch.zeros_like(self._block), torch.zeros_like(self.deep)

    def add(self, tiles: Tensor, mask: Tensor, row: int, first: int) -> None:
        """Count in the tiles, see :meth:`polyanchor.search.lists.Lists.add`."""
        blocks = torch.arange(first, first + len(tiles), device=tiles.device)
        if self.deep[row].any():
            left = blocks[:, None] < self._block[row]  # (n, side)
            floor = torch.where(left, self._or_equal[row], self._above[row])
            torch.ge(tiles, floor[:, :, None], out=mask)
            self.before[row] += row_counts(mask).sum(dim=0)
            tile, line = (self._block[row] == blocks[:, None]).nonzero(as_tuple=True)
            self._ties(torch.full_like(tile, row), line, tiles[tile, line])
        if first == row:
            blocks, tiles, mask = blocks[1:], tiles[1:], mask[1:]  # the diagonal tile has every pair twice
        if len(blocks) and self.deep[blocks].any():
            floor = torch.where(row < self._block[blocks], self._or_equal[blocks], self._above[blocks])
            torch.ge(tiles, floor[:, None], out=mask)
            self.before[blocks] += column_counts(mask)
            tile, line = (self._block[blocks] == row).nonzero(as_tuple=True)
            self._ties(blocks[tile], line, tiles.transpose(1, 2)[tile, line])

    def _ties(self, block: Tensor, line: Tensor, scores: Tensor) -> None:
        """Rows (block, line) in the tile of their targets: ``(rows, side)`` scores."""
        place, target = self._place[block, line, None], self._or_equal[block, line, None]
        column = torch.arange(self.side, device=place.device)
        self.before[block, line] += ((scores == target) & (column < place)).sum(dim=1)
        self.differs[block, line] = (scores.gather(1, place) != target).squeeze(1)


def rank_in(scores: Tensor, items: Tensor) -> Tensor:
    """Rank of one item per row of whole scores: the plain way.

    Args:
        scores: ``(q, N)``.
        items: ``(q,)`` int64; any rank comes out for -1.

    Returns:
        ``(q,)`` int64, from 1.

    Example:
        >>> rank_in(torch.tensor([[0.5, 0.9, 0.5], [0.5, 0.9, 0.5]]), torch.tensor([2, 0]))
        tensor([3, 2])
    """
    column = torch.arange(scores.shape[1], dtype=torch.int32, device=scores.device)
    ranks = torch.zeros_like(items)
    for some in parts(torch.arange(len(items), device=items.device), scores):
        item, block = items[some, None].clamp(min=0), scores[some]
        score = block.gather(1, item)
        ranks[some] = ((block == score) & (column < item)).logical_or_(block > score).sum(dim=1) + 1
    return ranks

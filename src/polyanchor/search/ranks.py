"""Where one item per row stands in the row's whole ranking, counted in square tiles of scores, both ways.

Equal scores stand in order of their items, so tiles left of the item's own count what is equal to it, tiles right of
it do not, and in its own the equal ones are looked at one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polyanchor.search.lists import by_block
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
        self._lines = [deep.nonzero().squeeze(1) for deep in self.deep]
        self.before, self.differs = torch.zeros_like(self._block), torch.zeros_like(self.deep)

    def add(self, tile: Tensor, row: int, column: int) -> None:
        """Count in the tile, see :meth:`polyanchor.search.lists.Lists.add`."""
        self._count(tile, row, column)
        if column > row:  # the diagonal tile has every pair twice
            self._count(tile.T, column, row)

    def _count(self, tile: Tensor, row: int, column: int) -> None:
        """Count for the rows of a block that need it."""
        line = self._lines[row]
        if len(line) == 0:
            return
        target = self._block[row, line]
        floor = torch.where(column < target, self._or_equal[row, line], self._above[row, line])
        # as float: with bool the comparison takes four times as long
        self.before[row, line] += tile.index_select(0, line).ge_(floor[:, None]).sum(dim=1).long()
        line = line[target == column]
        if len(line):
            self._ties(row, line, tile[line])

    def _ties(self, block: int, line: Tensor, scores: Tensor) -> None:
        """Rows of a block in the tile of their targets: ``(rows, side)`` scores."""
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

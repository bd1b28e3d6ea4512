"""Scores of a tile that may exceed the floor of their row or of their column, found through the maxima of small groups.

Few scores exceed a floor, and comparing them all, once for the rows and once for the columns, costs far more than
reading them. A group is four scores of one column, a quarter of the tile's height apart. Its maximum is compared once,
with the smallest of the floors that concern it, and only the groups that pass are looked into.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polyanchor.search.masks import marked

GROUP = 4


@dataclass(frozen=True)
class Candidates:
    """The m groups of a tile with a score above one of their floors.

    Attributes:
        line: ``(m,)`` int64, row of the group's first score.
        column: ``(m,)`` int64.
        scores: ``(GROUP, m)``; those of row g stand g quarters of the tile below the first.
        quarter: rows of a quarter.
    """

    line: Tensor
    column: Tensor
    scores: Tensor
    quarter: int

    def above(self, floor: Tensor) -> Tensor:
        """Places, in the flattened scores, of those above ``floor``; in order of their rows, then of their columns."""
        return (self.scores > floor).view(-1).nonzero().squeeze(1)

    def score(self, at: Tensor) -> Tensor:
        """Scores at places that :meth:`above` gave."""
        return self.scores.view(-1).index_select(0, at)

    def columns(self, at: Tensor) -> Tensor:
        """Their columns."""
        return self.column.index_select(0, at.remainder(max(len(self.column), 1)))

    def rows(self, at: Tensor) -> Tensor:
        """Their rows."""
        groups = max(len(self.line), 1)
        part = at.div(groups, rounding_mode="floor")
        return self.line.index_select(0, at.sub(part, alpha=groups)).add_(part, alpha=self.quarter)


def candidates(tile: Tensor, least: Tensor, column_floor: Tensor) -> Candidates:
    """Look for them.

    Args:
        tile: ``(side, side)`` scores, contiguous, side a multiple of 4 whose square is one of 32.
        least: ``(side / 4,)`` of the floors of the rows, see :func:`least_of_groups`.
        column_floor: ``(side,)``.

    Example:
        >>> tile = torch.zeros(8, 8)
        >>> tile[5, 2] = 0.9
        >>> floor = torch.full((8,), 0.5)
        >>> found = candidates(tile, least_of_groups(floor), floor)
        >>> at = found.above(torch.tensor(0.5))
        >>> found.rows(at), found.columns(at), found.score(at)
        (tensor([5]), tensor([2]), tensor([0.9000]))
    """
    side = len(tile)
    grouped = tile.view(GROUP, -1)
    top = tile.view(GROUP, side // GROUP, side).amax(dim=0)
    at = marked(top > torch.minimum(least[:, None], column_floor))
    line = at.div(side, rounding_mode="floor")
    return Candidates(line, at.sub(line, alpha=side), grouped.index_select(1, at), side // GROUP)


def least_of_groups(floor: Tensor) -> Tensor:
    """``(..., side)`` floors of rows -> ``(..., side / 4)``, the smallest of each group.

    Example:
        >>> least_of_groups(torch.tensor([5.0, 6, 7, 8, 1, 2, 9, 9]))
        tensor([1., 2.])
    """
    return floor.unflatten(-1, (GROUP, -1)).amin(dim=-2)

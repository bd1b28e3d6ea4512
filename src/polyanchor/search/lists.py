"""Lists of the items whose score exceeds a row's floor, filled from square tiles of scores, both ways."""

from __future__ import annotations

import torch
from torch import Tensor

from polyanchor.search.candidates import GROUP, candidates, least_of_groups

ENTRY_BYTES, FOUND_BYTES, LISTED_BYTES = 10, 160, 64  # of a kept score; while it is looked for; while it is ordered
_CROWDED = 4  # a list that many times longer than expected is not built

Part = tuple[Tensor, Tensor, Tensor]  # row within its block int16, item int32, score


def by_block(values: Tensor, side: int, fill: float) -> Tensor:
    """``(N,)`` as ``(blocks, side)``, filled up.

    Example:
        >>> by_block(torch.tensor([1, 2, 3]), 2, -1)
        tensor([[ 1,  2],
                [ 3, -1]])
    """
    padded = values.new_full((-(-len(values) // side) * side,), fill)
    padded[: len(values)] = values
    return padded.view(-1, side)


class Lists:
    """What was kept for the rows that are not complete yet.

    The parts of a block's lists come in ascending order of their items: first the blocks above it, which see it as
    columns, then its own row of blocks.

    Args:
        floor: ``(N,)``, only higher scores are kept.
        side: rows and columns of a tile.
        longest: items expected on the longest list.
    """

    def __init__(self, floor: Tensor, side: int, longest: float) -> None:
        self.side, self.longest = side, int(_CROWDED * longest) + 1
        self.floor = by_block(floor, side, torch.inf)
        self._least = least_of_groups(self.floor)
        self._parts: list[list[Part]] = [[] for _ in self.floor]

    def add(self, tile: Tensor, row: int, column: int) -> None:
        """Keep what exceeds the floors of the rows, and those of the columns unless it is the diagonal tile.

        Args:
            tile: ``(side, side)``, contiguous, scores of a block of rows with a block of columns.
            row: number of the block of rows.
            column: number of the block of columns, not below ``row``.
        """
        near = candidates(tile, self._least[row], self.floor[column])
        at = near.above(self.floor[row].view(GROUP, -1).index_select(1, near.line))
        self._parts[row].append(
            (near.rows(at).short(), near.columns(at).add_(column * self.side).int(), near.score(at))
        )
        if column > row:  # the diagonal tile has every pair twice
            at = near.above(self.floor[column].index_select(0, near.column))
            place, item = near.columns(at).short(), near.rows(at).add_(row * self.side).int()
            self._parts[column].append((place, item, near.score(at)))

    def take(self, row: int) -> tuple[Tensor, Tensor, Tensor]:
        """The lists of a block that has met all others; they are held no longer.

        Returns:
            ``(side, w)`` scores and ids int32, in ascending order of the ids, -inf and -1 behind the end; ``(side,)``
            lengths, 0 where a list was too long to be built.
        """
        place, item, score = (torch.cat(part) for part in zip(*self._parts[row], strict=True))
        self._parts[row] = []
        length = place.bincount(minlength=self.side)
        if int(length.max()) > self.longest:
            length = length.masked_fill(length > self.longest, 0)
            fits = length[place.int()] > 0
            place, item, score = place[fits], item[fits], score[fits]
        order = place.sort(stable=True).indices
        width = max(int(length.max()), 1)
        start = torch.arange(self.side, device=length.device) * width - (length.cumsum(0) - length)
        at = torch.arange(len(order), device=length.device).add_(start.repeat_interleave(length))
        scores = score.new_full((self.side, width), -torch.inf)
        ids = item.new_full((self.side, width), -1)
        scores.view(-1).scatter_(0, at, score[order])
        ids.view(-1).scatter_(0, at, item[order])
        return scores, ids, length

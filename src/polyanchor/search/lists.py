"""Lists of the items whose score exceeds a row's floor, filled from square tiles of scores, both ways."""

from __future__ import annotations

import torch
from torch import Tensor

from polyanchor.search.masks import marked

ENTRY_BYTES, FOUND_BYTES, LISTED_BYTES = 10, 48, 64  # of a kept score; while it is looked for; while it is ordered
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
        self._parts: list[list[Part]] = [[] for _ in self.floor]

    def add(self, tiles: Tensor, mask: Tensor, row: int, first: int) -> None:
        """Keep what exceeds the floors of the rows, and of the columns but those of the diagonal tile.

        Args:
            tiles: ``(n, side, side)``, scores of one block of rows with n blocks of columns.
            mask: bool of the same shape, to work in.
            row: number of the block of rows.
            first: number of the first block of columns, not below ``row``.
        """
        side, blocks = self.side, slice(first, first + len(tiles))
        torch.gt(tiles, self.floor[row, :, None], out=mask)
        line, column, score = self._kept(tiles, mask)
        tile = line.div(side, rounding_mode="floor")
        item = column.add_(tile, alpha=side).add_(first * side)
        self._parts[row].append((line.sub_(tile, alpha=side).short(), item.int(), score))

        torch.gt(tiles, self.floor[blocks, None], out=mask)
        if first == row:
            mask[0] = False  # it has every pair twice
        line, column, score = self._kept(tiles, mask)
        ends = torch.arange(len(tiles) + 1, device=line.device) * side
        cuts = torch.searchsorted(line, ends).tolist()
        place, item = column.short(), line.remainder_(side).add_(row * side).int()
        for parts, start, stop in zip(self._parts[blocks], cuts, cuts[1:], strict=False):
            parts.append((place[start:stop], item[start:stop], score[start:stop]))

    def _kept(self, tiles: Tensor, mask: Tensor) -> Part:
        """Row among those of all tiles, column, and score where the mask is set."""
        at = marked(mask)
        line = at.div(self.side, rounding_mode="floor")
        score = tiles.view(-1).index_select(0, at)
        return line, at.sub_(line, alpha=self.side), score

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

"""Leave-one-out search at half the cost: the product of a block of rows and a block of columns serves both.

The scores are symmetric, so the tiles on and above the diagonal hold them all. Of each tile, row by row and column by
column, the scores above the row's (the column's) floor are kept, see :mod:`polyanchor.search.threshold_lists`. A block
of rows is complete after its row of tiles; then its lists are put in order. Rows whose lists are too short are searched
the plain way.

All this asks that a score has the same bits in a tile, in its transpose and in the plain search. That holds where the
sums run in one order whatever the place in the product; :func:`pays` tries it out.

Equal scores stand in order of their items, so tiles left of the item's own count what is equal to it, tiles right of
it do not, and in its own the equal ones are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from polyanchor.search import scores
from polyanchor.search.scores import SearchInputs, best, row_chunks
from polyanchor.search.threshold_lists import (
    ENTRY_BYTES,
    FOUND_BYTES,
    LISTED_BYTES,
    Lists,
    Plan,
    by_block,
    plan,
    score_thresholds,
)
from polyanchor.types import Neighbours


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
        """Count in the tile, see :meth:`polyanchor.search.threshold_lists.Lists.add`."""
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
    for some in row_chunks(torch.arange(len(items), device=items.device), scores):
        item, block = items[some, None].clamp(min=0), scores[some]
        score = block.gather(1, item)
        ranks[some] = ((block == score) & (column < item)).logical_or_(block > score).sum(dim=1) + 1
    return ranks


HELD_BYTES = 256 * 2**20
TILE = 1008  # rows and columns of a tile, a multiple of 48
SMALLEST = 6_000  # below this many rows the plain search is as fast
_PLAIN_ROWS, _TRIED = 16, 144  # rows of the plain search, and of a tile, that are tried for equal bits
_WHOLE_BYTES = 8 * 2**20  # for rows that are searched the plain way
_LONGEST = 8  # lists longer than an eighth of the gallery cost more than they save

Rank = Callable[[Tensor], Tensor]
"""Rows of a block -> ranks of their targets in the whole gallery, from 1."""


def pays(task: SearchInputs, depth: Tensor, *, held_bytes: int = HELD_BYTES) -> Plan | None:
    """The plan of the symmetric search, or None where the plain one is quicker or the only one.

    It runs on a CPU, for galleries large enough, with lists short enough to save time and to be held in
    ``held_bytes``, and where products have the same bits both ways.

    Args:
        task: any.
        depth: ``(N,)`` int64, nearest items wanted by each row.
        held_bytes: memory for tiles and lists.

    Example:
        >>> pays(scores.leave_one_out(torch.eye(3)), torch.ones(3, dtype=torch.long)) is None
        True
    """
    if task.own is None or task.size < SMALLEST or task.gallery.device.type != "cpu":
        return None
    chosen = plan(depth)
    if chosen.length * _LONGEST > task.size:
        return None
    pending = ENTRY_BYTES * chosen.length * task.size / 4  # the middle rows' lists are half full at half time
    tile = TILE**2 * (2 * task.gallery.element_size() + FOUND_BYTES * chosen.length / task.size)
    block = LISTED_BYTES * chosen.longest * TILE
    return chosen if pending + tile + block + _WHOLE_BYTES <= held_bytes and _same_both_ways(task) else None


def sweep(
    task: SearchInputs, chosen: Plan, targets: Targets | None = None
) -> Iterator[tuple[int, Neighbours, Rank]] | None:
    """The nearest items of each row, and the ranks of the targets.

    Args:
        task: leave-one-out.
        chosen: from :func:`pays`.
        targets: items whose ranks are wanted.

    Returns:
        An iterator of ``(number of the first row, neighbours, rank)``. The neighbours are as many as the deepest row
        of the block wants; a row that wants fewer may hold ids -1 with scores -inf behind its depth. ``rank`` is for
        rows with a target, in ascending order. None if so many scores are equal that no floor divides them.
    """
    floor = score_thresholds(task, chosen, TILE)
    return None if floor is None else _blocks(task, chosen, floor, targets)


def _blocks(
    task: SearchInputs, chosen: Plan, floor: Tensor, targets: Targets | None
) -> Iterator[tuple[int, Neighbours, Rank]]:
    lists = Lists(floor, TILE, chosen.longest)
    counts = None if targets is None else Counts(targets, floor, TILE)
    tile = task.gallery.new_empty(TILE, TILE)
    count = len(lists.floor)
    for row in range(count):
        for column in range(row, count):
            _fill(task, tile, row, column)
            lists.add(tile, row, column)
            if counts is not None:
                counts.add(tile, row, column)
        start, size = row * TILE, min(TILE, task.size - row * TILE)
        values, ids, length = (part[:size] for part in lists.take(row))
        found = _nearest(task, chosen.depth[start : start + size], start, values, ids, length)
        if targets is None or counts is None:
            yield start, found, torch.zeros_like
        else:
            yield start, found, partial(_ranks, task, targets, counts, start, Neighbours(ids, values))


def _fill(task: SearchInputs, tile: Tensor, row: int, column: int) -> None:
    """Scores of a block of rows with a block of columns; -inf on the diagonal and outside of the gallery."""
    rows, columns = (task.gallery[block * TILE : (block + 1) * TILE] for block in (row, column))
    torch.mm(rows, columns.T, out=tile[: len(rows), : len(columns)])  # with out=, autocast leaves it alone
    if column == row:
        tile.fill_diagonal_(-torch.inf)
    tile[:, max(task.size - column * TILE, 0) :] = -torch.inf
    tile[max(task.size - row * TILE, 0) :] = -torch.inf


def _nearest(task: SearchInputs, depth: Tensor, start: int, values: Tensor, ids: Tensor, length: Tensor) -> Neighbours:
    """The best of the lists of rows ``start, start + 1, ...``; of too short ones the best of the whole gallery."""
    deepest = int(depth.max())
    missing = max(deepest - values.shape[1], 0)
    values, ids = F.pad(values, (0, missing), value=-torch.inf), F.pad(ids, (0, missing), value=-1)
    listed = best(values, deepest)
    found = Neighbours(ids.gather(1, listed.ids).long(), listed.scores.clone())
    short = (length < depth).nonzero().squeeze(1)
    for some, block in _whole_rows(task, short, start, deepest):
        plain = best(block, deepest)
        found.ids[some], found.scores[some] = plain.ids, plain.scores
    return found


def _ranks(
    task: SearchInputs, targets: Targets, counts: Counts, start: int, listed: Neighbours, rows: Tensor
) -> Tensor:
    """Ranks of the targets of these rows of the block: counted, or looked up in the lists, or searched."""
    item, score = targets.ids[start + rows, None], targets.scores[start + rows, None]
    values, ids, row = listed.scores[rows], listed.ids[rows], start // TILE
    same = values == score
    place = (values > score).sum(dim=1) + (same & (ids < item)).sum(dim=1)
    deep = counts.deep[row, rows]
    ranks = torch.where(deep, counts.before[row, rows], place) + 1
    known = torch.where(deep, ~counts.differs[row, rows], (same & (ids == item)).any(dim=1))
    unknown = (~known).nonzero().squeeze(1)
    for some, block in _whole_rows(task, rows[unknown], start, 1):
        at = torch.searchsorted(rows, some)
        ranks[at] = rank_in(block, item[at, 0])
    return ranks


def _whole_rows(task: SearchInputs, rows: Tensor, start: int, k: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Some of the rows ``start + rows`` and all their scores."""
    own = start + rows
    missing = replace(task, queries=task.gallery[own], own=own)
    for at, block in scores.score_blocks(missing, scores.rows_per_block(task, k, _WHOLE_BYTES)):
        yield rows[at : at + len(block)], block


def _same_both_ways(task: SearchInputs) -> bool:
    """Whether a tile, its transpose and the plain search agree to the last bit, tried on the ends of the gallery."""
    rows, columns = task.gallery[:_TRIED], task.gallery[-TILE:]
    tile = scores.product(rows, columns)
    plain = scores.product(task.gallery[:_PLAIN_ROWS], task.gallery)[: len(rows), -len(columns) :]
    return torch.equal(tile, scores.product(columns, rows).T) and torch.equal(tile[: len(plain)], plain)

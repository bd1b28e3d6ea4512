"""Leave-one-out search at half the cost, from the symmetry of the scores.

Only tiles on and above the diagonal are computed. Of each tile, the scores above the floor of their row, and of their
column, are kept, see :mod:`polyanchor.search.threshold_lists`. A block of rows is complete after its row of tiles, and
its lists are then sorted. Rows whose lists are too short are searched the plain way.

A score must have the same bits in a tile, in its transpose and in the plain search, which holds where the order of
summation does not depend on the position in the product; :func:`pays` tests it.

Equal scores are ranked in order of their items: tiles left of the item's own count equal scores, tiles right of it do
not, and within its own tile they are compared one by one.
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

HELD_BYTES = 256 * 2**20
TILE = 1008  # rows and columns of a tile, a multiple of 48
SMALLEST = 6_000  # below this many rows the plain search is as fast
_PLAIN_ROWS, _TRIED = 16, 144  # rows of the plain search, and of a tile, that are tested for equal bits
_WHOLE_BYTES = 8 * 2**20  # for rows that are searched the plain way
_LONGEST = 8  # lists longer than an eighth of the gallery cost more than they save
Rank = Callable[[Tensor], Tensor]
"""Rows of a block -> ranks of their targets in the whole gallery, from 1."""


@dataclass(frozen=True)
class Targets:
    """The item of each row whose rank is computed: ``(N,)`` int64 ids, -1 for none, and their ``(N,)`` scores."""

    ids: Tensor
    scores: Tensor


def pays(inputs: SearchInputs, depth: Tensor, *, held_bytes: int = HELD_BYTES) -> Plan | None:
    """The plan of the symmetric search for ``(N,)`` depths, or None where the plain one is faster or alone correct.

    The symmetric search runs on a CPU, for large galleries, with lists short enough to save time and to fit into
    ``held_bytes``, and where products have the same bits both ways.
    """
    if inputs.own is None or inputs.size < SMALLEST or inputs.gallery.device.type != "cpu":
        return None
    chosen = plan(depth)
    if chosen.length * _LONGEST > inputs.size:
        return None
    pending = ENTRY_BYTES * chosen.length * inputs.size / 4  # at half time the lists of the middle rows are half full
    tile = TILE**2 * (2 * inputs.gallery.element_size() + FOUND_BYTES * chosen.length / inputs.size)
    block = LISTED_BYTES * chosen.longest * TILE
    return chosen if pending + tile + block + _WHOLE_BYTES <= held_bytes and _same_both_ways(inputs) else None


def sweep(
    inputs: SearchInputs, chosen: Plan, targets: Targets | None = None
) -> Iterator[tuple[int, Neighbours, Rank]] | None:
    """The nearest items of each row, and the ranks of the targets.

    Returns:
        An iterator of ``(first row, neighbours, rank)``. All rows of a block have as many neighbours as its deepest row
        needs; beyond its own depth a row may hold ids -1 with scores -inf. ``rank`` takes rows with a target, in
        ascending order. None if so many scores are equal that no floor separates them.
    """
    floor = score_thresholds(inputs, chosen, TILE)
    return None if floor is None else _blocks(inputs, chosen, floor, targets)


def _blocks(
    inputs: SearchInputs, chosen: Plan, floor: Tensor, targets: Targets | None
) -> Iterator[tuple[int, Neighbours, Rank]]:
    lists = Lists(floor, TILE, chosen.longest)
    counts = None if targets is None else Counts(targets, floor, TILE)
    tile = inputs.gallery.new_empty(TILE, TILE)
    count = len(lists.floor)
    for row in range(count):
        for column in range(row, count):
            _fill(inputs, tile, row, column)
            lists.add(tile, row, column)
            if counts is not None:
                counts.add(tile, row, column)
        start, size = row * TILE, min(TILE, inputs.size - row * TILE)
        values, ids, length = (part[:size] for part in lists.take(row))
        neighbours = _nearest(inputs, chosen.depth[start : start + size], start, values, ids, length)
        if targets is None or counts is None:
            yield start, neighbours, torch.zeros_like
        else:
            yield start, neighbours, partial(_ranks, inputs, targets, counts, start, Neighbours(ids, values))


def _fill(inputs: SearchInputs, tile: Tensor, row: int, column: int) -> None:
    """Scores of a block of rows with a block of columns; -inf on the diagonal and outside of the gallery."""
    rows, columns = (inputs.gallery[block * TILE : (block + 1) * TILE] for block in (row, column))
    torch.mm(rows, columns.T, out=tile[: len(rows), : len(columns)])  # with out=, autocast leaves it alone
    if column == row:
        tile.fill_diagonal_(-torch.inf)
    tile[:, max(inputs.size - column * TILE, 0) :] = -torch.inf
    tile[max(inputs.size - row * TILE, 0) :] = -torch.inf


def _nearest(
    inputs: SearchInputs, depth: Tensor, start: int, values: Tensor, ids: Tensor, length: Tensor
) -> Neighbours:
    """The best of the lists of rows ``start, start + 1, ...``, or of the whole gallery where a list is too short."""
    deepest = int(depth.max())
    missing = max(deepest - values.shape[1], 0)
    values, ids = F.pad(values, (0, missing), value=-torch.inf), F.pad(ids, (0, missing), value=-1)
    listed = best(values, deepest)
    neighbours = Neighbours(ids.gather(1, listed.ids).long(), listed.scores.clone())
    short = (length < depth).nonzero().squeeze(1)
    for rows, block in _whole_rows(inputs, short, start, deepest):
        plain = best(block, deepest)
        neighbours.ids[rows], neighbours.scores[rows] = plain.ids, plain.scores
    return neighbours


def _ranks(
    inputs: SearchInputs, targets: Targets, counts: Counts, start: int, listed: Neighbours, rows: Tensor
) -> Tensor:
    """Ranks of the targets of these rows of the block: counted, or looked up in the lists, or searched."""
    item, score = targets.ids[start + rows, None], targets.scores[start + rows, None]
    values, ids, row = listed.scores[rows], listed.ids[rows], start // TILE
    same = values == score
    before = (values > score).sum(dim=1) + (same & (ids < item)).sum(dim=1)
    deep = counts.deep[row, rows]
    ranks = torch.where(deep, counts.before[row, rows], before) + 1
    certain = torch.where(deep, ~counts.differs[row, rows], (same & (ids == item)).any(dim=1))
    uncertain = (~certain).nonzero().squeeze(1)
    for whole, block in _whole_rows(inputs, rows[uncertain], start, 1):
        at = torch.searchsorted(rows, whole)
        ranks[at] = rank_in(block, item[at, 0])
    return ranks


def _whole_rows(inputs: SearchInputs, rows: Tensor, start: int, k: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of the rows ``start + rows``, with all their scores."""
    own = start + rows
    short = replace(inputs, queries=inputs.gallery[own], own=own)
    for at, block in scores.score_blocks(short, scores.rows_per_block(inputs, k, _WHOLE_BYTES)):
        yield rows[at : at + len(block)], block


def _same_both_ways(inputs: SearchInputs) -> bool:
    """Whether a tile, its transpose and the plain search agree to the last bit, tested on the ends of the gallery."""
    rows, columns = inputs.gallery[:_TRIED], inputs.gallery[-TILE:]
    tile = scores.product(rows, columns)
    plain = scores.product(inputs.gallery[:_PLAIN_ROWS], inputs.gallery)[: len(rows), -len(columns) :]
    return torch.equal(tile, scores.product(columns, rows).T) and torch.equal(tile[: len(plain)], plain)


class Counts:
    """Counts of the items before targets that are not above their rows' floors.

    Attributes:
        deep: ``(blocks, side)`` bool, rows that are counted.
        before: ``(blocks, side)`` int64, items before the target, complete after all tiles of the row.
        differs: ``(blocks, side)`` bool, rows where a tile gave the target another score, so their counts are void.
    """

    def __init__(self, targets: Targets, floor: Tensor, side: int) -> None:
        deep = (targets.ids >= 0) & (targets.scores <= floor) & floor.isfinite()
        self.side, self.deep = side, by_block(deep, side, False)
        self._or_equal = by_block(targets.scores.masked_fill(~deep, torch.inf), side, torch.inf)
        self._above = self._or_equal.nextafter(torch.full_like(self._or_equal, torch.inf))
        self._block = by_block(targets.ids.div(side, rounding_mode="floor").masked_fill(~deep, -1), side, -1)
        self._column = by_block(targets.ids.remainder(side), side, 0)
        self._rows = [deep.nonzero().squeeze(1) for deep in self.deep]
        self.before, self.differs = torch.zeros_like(self._block), torch.zeros_like(self.deep)

    def add(self, tile: Tensor, row: int, column: int) -> None:
        """Count in a tile, see :meth:`polyanchor.search.threshold_lists.Lists.add`."""
        self._count(tile, row, column)
        if column > row:  # the diagonal tile has every pair twice
            self._count(tile.T, column, row)

    def _count(self, tile: Tensor, row: int, column: int) -> None:
        line = self._rows[row]
        if len(line) == 0:
            return
        target = self._block[row, line]
        floor = torch.where(column < target, self._or_equal[row, line], self._above[row, line])
        # in place, so as float: a bool result takes four times as long
        self.before[row, line] += tile.index_select(0, line).ge_(floor[:, None]).sum(dim=1).long()
        line = line[target == column]
        if len(line):
            self._ties(row, line, tile[line])

    def _ties(self, block: int, line: Tensor, scores: Tensor) -> None:
        """Count equal scores of the rows of a block in the tile of their targets: ``(rows, side)`` scores."""
        own, target = self._column[block, line, None], self._or_equal[block, line, None]
        column = torch.arange(self.side, device=own.device)
        self.before[block, line] += ((scores == target) & (column < own)).sum(dim=1)
        self.differs[block, line] = (scores.gather(1, own) != target).squeeze(1)


def rank_in(scores: Tensor, items: Tensor) -> Tensor:
    """Rank, from 1, of ``(q,)`` items, one in each row of ``(q, N)`` scores; arbitrary for item -1."""
    column = torch.arange(scores.shape[1], dtype=torch.int32, device=scores.device)
    ranks = torch.zeros_like(items)
    for chunk in row_chunks(torch.arange(len(items), device=items.device), scores):
        item, block = items[chunk, None].clamp(min=0), scores[chunk]
        score = block.gather(1, item)
        ranks[chunk] = ((block == score) & (column < item)).logical_or_(block > score).sum(dim=1) + 1
    return ranks

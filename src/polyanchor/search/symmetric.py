"""Leave-one-out search at half the cost: the product of a block of rows and a block of columns serves both.

The scores are symmetric, so the tiles on and above the diagonal hold them all. Of each tile, row by row and column by
column, the scores above the row's (the column's) floor are kept, see :mod:`polyanchor.search.floors`. A block of rows
is complete after its row of tiles; then its lists are put in order. Rows whose lists are too short are searched the
plain way.

All this asks that a score has the same bits in a tile, in its transpose and in the plain search. That holds where the
sums run in one order whatever the place in the product; :func:`pays` tries it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from polyanchor.search import scores
from polyanchor.search.floors import Plan, floors, plan
from polyanchor.search.lists import ENTRY_BYTES, FOUND_BYTES, LISTED_BYTES, Lists
from polyanchor.search.ranks import Counts, Targets, rank_in
from polyanchor.search.scores import Task
from polyanchor.search.topk import best
from polyanchor.types import Neighbours

HELD_BYTES = 256 * 2**20
TILE = 1008  # rows and columns of a tile, a multiple of 48
SMALLEST = 6_000  # below this many rows the plain search is as fast
_PLAIN_ROWS, _TRIED = 16, 144  # rows of the plain search, and of a tile, that are tried for equal bits
_WHOLE_BYTES = 8 * 2**20  # for rows that are searched the plain way
_LONGEST = 8  # lists longer than an eighth of the gallery cost more than they save

Rank = Callable[[Tensor], Tensor]
"""Rows of a block -> ranks of their targets in the whole gallery, from 1."""


def pays(task: Task, depth: Tensor, *, held_bytes: int = HELD_BYTES) -> Plan | None:
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


def sweep(task: Task, chosen: Plan, targets: Targets | None = None) -> Iterator[tuple[int, Neighbours, Rank]] | None:
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
    floor = floors(task, chosen, TILE)
    return None if floor is None else _blocks(task, chosen, floor, targets)


def _blocks(task: Task, chosen: Plan, floor: Tensor, targets: Targets | None) -> Iterator[tuple[int, Neighbours, Rank]]:
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


def _fill(task: Task, tile: Tensor, row: int, column: int) -> None:
    """Scores of a block of rows with a block of columns; -inf on the diagonal and outside of the gallery."""
    rows, columns = (task.gallery[block * TILE : (block + 1) * TILE] for block in (row, column))
    torch.mm(rows, columns.T, out=tile[: len(rows), : len(columns)])  # with out=, autocast leaves it alone
    if column == row:
        tile.fill_diagonal_(-torch.inf)
    tile[:, max(task.size - column * TILE, 0) :] = -torch.inf
    tile[max(task.size - row * TILE, 0) :] = -torch.inf


def _nearest(task: Task, depth: Tensor, start: int, values: Tensor, ids: Tensor, length: Tensor) -> Neighbours:
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


def _ranks(task: Task, targets: Targets, counts: Counts, start: int, listed: Neighbours, rows: Tensor) -> Tensor:
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


def _whole_rows(task: Task, rows: Tensor, start: int, k: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Some of the rows ``start + rows`` and all their scores."""
    own = start + rows
    missing = replace(task, queries=task.gallery[own], own=own)
    for at, block in scores.score_blocks(missing, scores.rows_per_block(task, k, _WHOLE_BYTES)):
        yield rows[at : at + len(block)], block


def _same_both_ways(task: Task) -> bool:
    """Whether a tile, its transpose and the plain search agree to the last bit, tried on the ends of the gallery."""
    rows, columns = task.gallery[:_TRIED], task.gallery[-TILE:]
    tile = scores.product(rows, columns)
    plain = scores.product(task.gallery[:_PLAIN_ROWS], task.gallery)[: len(rows), -len(columns) :]
    return torch.equal(tile, scores.product(columns, rows).T) and torch.equal(tile[: len(plain)], plain)

"""Lists of the items above a row's floor, filled from square tiles of scores, for rows and columns at once.

The floor of a row is the j-th best score of s sampled items. It is below the row's d best scores unless j of these d
were sampled; j is chosen so that this rarely happens. The list of scores above the floor is then short and nearly
always holds the d best; where it does not, it is shorter than d, which is detected.

Few scores exceed a floor, and comparing all of them, for rows and for columns, costs far more than reading them. So
scores are grouped, four of one column, a quarter of the tile's height apart; the maximum of a group is compared once,
with the smallest of its floors, and only groups that pass are examined.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from polyanchor.search.scores import SearchInputs, marked

GROUP = 4
ENTRY_BYTES, FOUND_BYTES, LISTED_BYTES = 10, 160, 64  # of a kept score, while it is found, and while it is sorted
_CROWDED = 4  # a list this many times longer than expected is not built
_TOO_SHORT = 2e-4  # share of rows whose list may be too short: one in a block costs as much as 16
_SAMPLES = (256, 512, 1024, 2048)
_SAMPLED, _ITEM = 2.0, 8.0  # cost of a sampled score and of a listed item, in computed scores (measured)
_HOPELESS = 0.25  # share of rows with ties at which the search gives up
Part = tuple[Tensor, Tensor, Tensor]  # row within its block int16, item int32, score


@dataclass(frozen=True)
class Plan:
    """How floors are chosen.

    Attributes:
        sample: number of sampled items.
        rank: ``(N,)`` int64, the floor's rank among the row's sampled scores, from 1.
        depth: ``(N,)`` int64, nearest items needed.
    """

    sample: int
    rank: Tensor
    depth: Tensor

    @property
    def length(self) -> float:
        """Expected items on a list, on average."""
        return float(self.rank.double().mean()) / self.sample * len(self.rank)

    @property
    def longest(self) -> float:
        """Expected items on the longest list."""
        return float(self.rank.max()) / self.sample * len(self.rank)


def plan(depth: Tensor) -> Plan:
    """The plan with the cheapest sample, for ``(N,)`` depths of at least 1."""
    size = len(depth)
    depths, which = depth.unique(return_inverse=True)
    count = which.bincount().double()
    best: tuple[float, int, list[int]] | None = None
    for sample in sorted({min(s, size) for s in _SAMPLES}):
        ranks = [order_statistic(d, sample, size) for d in depths.tolist()]
        length = float((torch.tensor(ranks, device=count.device) * count).sum()) / sample
        cost = _SAMPLED * sample + _ITEM * length
        if best is None or cost < best[0]:
            best = cost, sample, ranks
    assert best is not None
    return Plan(best[1], torch.tensor(best[2], device=depth.device)[which], depth)


def order_statistic(depth: int, sample: int, size: int) -> int:
    """The smallest j with P(at least j of ``depth`` items are among ``sample`` of ``size``) at most 0.0002."""
    share = min(sample / size, 0.5)
    log_share, log_rest = math.log(share), math.log1p(-share)
    below = 0.0
    for j in range(depth + 1):
        ways = math.lgamma(depth + 1) - math.lgamma(j + 1) - math.lgamma(depth - j + 1)
        below += math.exp(ways + j * log_share + (depth - j) * log_rest)
        if 1 - below <= _TOO_SHORT:
            return min(j + 1, sample)
    return min(depth + 1, sample)


def score_thresholds(inputs: SearchInputs, plan: Plan, rows: int) -> Tensor | None:
    """``(N,)`` floors, computed ``rows`` at a time, a multiple of 16.

    Infinite where so many sampled scores are equal that the list would be too short. None if that holds for a quarter
    of the rows.
    """
    random = torch.Generator().manual_seed(0)
    picked = torch.randperm(inputs.size, generator=random)[: plan.sample].sort().values.to(inputs.gallery.device)
    sample = inputs.gallery[picked]
    column = torch.full((len(inputs.gallery),), -1, device=picked.device)
    column[picked] = torch.arange(len(picked), device=picked.device)
    floors = inputs.gallery.new_empty(inputs.size)
    buffer = inputs.gallery.new_empty(rows, len(picked))
    deepest, hopeless = int(plan.rank.max()), 0
    for start in range(0, inputs.size, rows):
        block = inputs.gallery[start : start + rows]
        span = slice(start, min(start + rows, inputs.size))
        scores = torch.mm(block, sample.T, out=buffer[: len(block)])[: span.stop - start]
        own = column[span]
        sampled = (own >= 0).nonzero().squeeze(1)
        scores[sampled, own[sampled]] = -torch.inf
        top = scores.topk(deepest, dim=1).values
        floor = top.gather(1, plan.rank[span, None] - 1)
        short = (top > floor).sum(dim=1) * inputs.size < plan.depth[span] * len(picked)
        floors[span] = floor.squeeze(1).masked_fill_(short, torch.inf)
        hopeless += int(short.sum())
    return None if hopeless > _HOPELESS * inputs.size else floors


def by_block(values: Tensor, side: int, fill: float) -> Tensor:
    """``(N,)`` as ``(blocks, side)``, padded with ``fill``."""
    padded = values.new_full((-(-len(values) // side) * side,), fill)
    padded[: len(values)] = values
    return padded.view(-1, side)


class Lists:
    """Kept scores, above the ``(N,)`` floor, of the rows that are not complete yet.

    The parts of a block's lists come in ascending order of items: first from the blocks above, which see it as columns,
    then from its own row of blocks. ``longest`` is the expected length of the longest list.
    """

    def __init__(self, floor: Tensor, side: int, longest: float) -> None:
        self.side, self.longest = side, int(_CROWDED * longest) + 1
        self.floor = by_block(floor, side, torch.inf)
        self._least = least_of_groups(self.floor)
        self._parts: list[list[Part]] = [[] for _ in self.floor]

    def add(self, tile: Tensor, row: int, column: int) -> None:
        """Keep the scores of a tile above the floors of the rows and, unless it is diagonal, of the columns.

        ``tile`` is ``(side, side)``, contiguous, of block ``row`` of the rows and block ``column``, not below ``row``.
        """
        near = candidates(tile, self._least[row], self.floor[column])
        at = near.above(self.floor[row].view(GROUP, -1).index_select(1, near.line))
        self._parts[row].append(
            (near.rows(at).short(), near.columns(at).add_(column * self.side).int(), near.score(at))
        )
        if column > row:  # the diagonal tile has every pair twice
            at = near.above(self.floor[column].index_select(0, near.column))
            line, item = near.columns(at).short(), near.rows(at).add_(row * self.side).int()
            self._parts[column].append((line, item, near.score(at)))

    def take(self, row: int) -> tuple[Tensor, Tensor, Tensor]:
        """The lists of a complete block, which are released.

        ``(side, w)`` scores and int32 ids, in ascending order of the ids, padded with -inf and -1; ``(side,)`` lengths,
        0 where a list was too long to build.
        """
        line, item, score = (torch.cat(part) for part in zip(*self._parts[row], strict=True))
        self._parts[row] = []
        length = line.bincount(minlength=self.side)
        if int(length.max()) > self.longest:
            length = length.masked_fill(length > self.longest, 0)
            fits = length[line.int()] > 0
            line, item, score = line[fits], item[fits], score[fits]
        order = line.sort(stable=True).indices
        width = max(int(length.max()), 1)
        start = torch.arange(self.side, device=length.device) * width - (length.cumsum(0) - length)
        at = torch.arange(len(order), device=length.device).add_(start.repeat_interleave(length))
        scores = score.new_full((self.side, width), -torch.inf)
        ids = item.new_full((self.side, width), -1)
        scores.view(-1).scatter_(0, at, score[order])
        ids.view(-1).scatter_(0, at, item[order])
        return scores, ids, length


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
        """Indices, in the flattened scores, of those above ``floor``, in order of rows, then of columns."""
        return (self.scores > floor).view(-1).nonzero().squeeze(1)

    def score(self, at: Tensor) -> Tensor:
        """Scores at indices from :meth:`above`."""
        return self.scores.view(-1).index_select(0, at)

    def columns(self, at: Tensor) -> Tensor:
        """Columns at indices from :meth:`above`."""
        return self.column.index_select(0, at.remainder(max(len(self.column), 1)))

    def rows(self, at: Tensor) -> Tensor:
        """Rows at indices from :meth:`above`."""
        groups = max(len(self.line), 1)
        part = at.div(groups, rounding_mode="floor")
        return self.line.index_select(0, at.sub(part, alpha=groups)).add_(part, alpha=self.quarter)


def candidates(tile: Tensor, least: Tensor, column_floor: Tensor) -> Candidates:
    """Groups of a tile that may hold scores above a floor.

    Args:
        tile: ``(side, side)`` scores, contiguous, side a multiple of 4 whose square is one of 32.
        least: ``(side / 4,)`` smallest floor of the rows of each group, see :func:`least_of_groups`.
        column_floor: ``(side,)`` floors of the columns.
    """
    side = len(tile)
    grouped = tile.view(GROUP, -1)
    top = tile.view(GROUP, side // GROUP, side).amax(dim=0)
    at = marked(top > torch.minimum(least[:, None], column_floor))
    line = at.div(side, rounding_mode="floor")
    return Candidates(line, at.sub(line, alpha=side), grouped.index_select(1, at), side // GROUP)


def least_of_groups(floor: Tensor) -> Tensor:
    """``(..., side)`` floors of rows -> ``(..., side / 4)``, the smallest of each group."""
    return floor.unflatten(-1, (GROUP, -1)).amin(dim=-2)

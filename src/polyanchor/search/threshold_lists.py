"""Lists of the items whose score exceeds a row's floor, filled from square tiles of scores, both ways.

Few scores exceed a floor, and comparing them all, once for the rows and once for the columns, costs far more than
reading them. A group is four scores of one column, a quarter of the tile's height apart. Its maximum is compared once,
with the smallest of the floors that concern it, and only the groups that pass are looked into.

The j-th best score of s sampled items is below the row's d best unless j of these d were sampled. With j chosen for
that to happen to few rows, whoever compares all scores with it keeps a short list that nearly always holds the d
best; where it does not, the list is too short, and that is seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from polyanchor.search.scores import SearchInputs, marked

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


_TOO_SHORT = 2e-4  # share of rows whose list may come out too short: one of a block costs as much as 16
_SAMPLES = (256, 512, 1024, 2048)
_SAMPLED, _ITEM = 2.0, 8.0  # costs of a sampled score and of an item on a list, measured in scores computed
_HOPELESS = 0.25


@dataclass(frozen=True)
class Plan:
    """How floors are taken.

    Attributes:
        sample: number of sampled items.
        place: ``(N,)`` int64, the place from above in the row's sampled scores at which the floor is.
        depth: ``(N,)`` int64, nearest items wanted.
    """

    sample: int
    place: Tensor
    depth: Tensor

    @property
    def length(self) -> float:
        """Items to be expected on a list, on average."""
        return float(self.place.double().mean()) / self.sample * len(self.place)

    @property
    def longest(self) -> float:
        """Items to be expected on the longest list."""
        return float(self.place.max()) / self.sample * len(self.place)


def plan(depth: Tensor) -> Plan:
    """The cheapest sample.

    Args:
        depth: ``(N,)`` int64, at least 1, how many nearest items each row wants.

    Example:
        >>> chosen = plan(torch.full((20_000,), 10))
        >>> chosen.sample, int(chosen.place[0])
        (512, 4)
    """
    size = len(depth)
    depths, which = depth.unique(return_inverse=True)
    count = which.bincount().double()
    best: tuple[float, int, list[int]] | None = None
    for sample in sorted({min(s, size) for s in _SAMPLES}):
        places = [order_statistic(d, sample, size) for d in depths.tolist()]
        length = float((torch.tensor(places, device=count.device) * count).sum()) / sample
        cost = _SAMPLED * sample + _ITEM * length
        if best is None or cost < best[0]:
            best = cost, sample, places
    assert best is not None
    return Plan(best[1], torch.tensor(best[2], device=depth.device)[which], depth)


def order_statistic(depth: int, sample: int, size: int) -> int:
    """The smallest j with P(at least j of ``depth`` items are among ``sample`` of ``size``) at most 0.0002.

    Example:
        >>> order_statistic(1, 512, 20_000), order_statistic(200, 512, 20_000)
        (2, 16)
    """
    share = min(sample / size, 0.5)
    log_share, log_rest = math.log(share), math.log1p(-share)
    below = 0.0
    for j in range(depth + 1):
        ways = math.lgamma(depth + 1) - math.lgamma(j + 1) - math.lgamma(depth - j + 1)
        below += math.exp(ways + j * log_share + (depth - j) * log_rest)
        if 1 - below <= _TOO_SHORT:
            return min(j + 1, sample)
    return min(depth + 1, sample)


def score_thresholds(task: SearchInputs, plan: Plan, rows: int) -> Tensor | None:
    """The floors.

    Args:
        task: leave-one-out.
        plan: from :func:`plan`.
        rows: how many rows to take at once, a multiple of 16.

    Returns:
        ``(N,)`` in the dtype of the scores; infinite where so many sampled scores are equal that the list would
        be too short. None if that is so for a quarter of the rows: they hold little but ties.
    """
    random = torch.Generator().manual_seed(0)
    picked = torch.randperm(task.size, generator=random)[: plan.sample].sort().values.to(task.gallery.device)
    sample = task.gallery[picked]
    column = torch.full((len(task.gallery),), -1, device=picked.device)
    column[picked] = torch.arange(len(picked), device=picked.device)
    found = task.gallery.new_empty(task.size)
    buffer = task.gallery.new_empty(rows, len(picked))
    deepest, hopeless = int(plan.place.max()), 0
    for start in range(0, task.size, rows):
        block = task.gallery[start : start + rows]
        here = slice(start, min(start + rows, task.size))
        scores = torch.mm(block, sample.T, out=buffer[: len(block)])[: here.stop - start]
        own = column[here]
        sampled = (own >= 0).nonzero().squeeze(1)
        scores[sampled, own[sampled]] = -torch.inf
        top = scores.topk(deepest, dim=1).values
        floor = top.gather(1, plan.place[here, None] - 1)
        short = (top > floor).sum(dim=1) * task.size < plan.depth[here] * len(picked)
        found[here] = floor.squeeze(1).masked_fill_(short, torch.inf)
        hopeless += int(short.sum())
    return None if hopeless > _HOPELESS * task.size else found

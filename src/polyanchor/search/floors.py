"""A score for each row that about its nearest items exceed, from a random sample of the gallery.

The j-th best score of s sampled items is below the row's d best unless j of these d were sampled. With j chosen for
that to happen to few rows, whoever compares all scores with it keeps a short list that nearly always holds the d
best; where it does not, the list is too short, and that is seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from polyanchor.search.scores import Task

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
        places = [place_for(d, sample, size) for d in depths.tolist()]
        length = float((torch.tensor(places, device=count.device) * count).sum()) / sample
        cost = _SAMPLED * sample + _ITEM * length
        if best is None or cost < best[0]:
            best = cost, sample, places
    assert best is not None
    return Plan(best[1], torch.tensor(best[2], device=depth.device)[which], depth)


def place_for(depth: int, sample: int, size: int) -> int:
    """The smallest j with P(at least j of ``depth`` items are among ``sample`` of ``size``) at most 0.0002.

    Example:
        >>> place_for(1, 512, 20_000), place_for(200, 512, 20_000)
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


def floors(task: Task, plan: Plan, rows: int) -> Tensor | None:
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

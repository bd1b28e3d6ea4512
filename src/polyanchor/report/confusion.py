"""Which classes a class's queries find first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Confusion:
    r"""Of the queries of class a, the share whose nearest neighbour is of class b.

    .. math:: C_{ab} = \frac{1}{|Q_a|} \sum_{q \in Q_a} [\,\text{class of } q\text{'s nearest neighbour} = b\,]

    The rows sum to 1, and the mean of :math:`C_{aa}` over all queries is recall@1.

    Attributes:
        queries: class id -> number of its queries that have something to find.
        counts: a -> b -> number of the queries of a whose nearest neighbour is of b; pairs that occur.
    """

    queries: dict[int, int]
    counts: dict[int, dict[int, int]]

    def share(self, asked: int, found: int) -> float:
        """The share, 0 for a pair that does not occur."""
        return self.counts[asked].get(found, 0) / self.queries[asked]

    def of(self, asked: int) -> list[tuple[int, float]]:
        """The wrong classes that a class's queries find, with their shares, strongest first."""
        wrong = [(b, self.share(asked, b)) for b in self.counts[asked] if b != asked]
        return sorted(wrong, key=lambda pair: (-pair[1], pair[0]))


def confusion(labels: Tensor, nearest: Tensor, known: Tensor) -> Confusion:
    """Count.

    Args:
        labels: ``(Q,)`` int64, classes of the queries.
        nearest: ``(Q,)`` int64, classes of their nearest neighbours.
        known: ``(Q,)`` bool, whether a query has an item of its class to find; others are left out.

    Example:
        >>> found = confusion(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), torch.tensor([True, True, True]))
        >>> found.share(0, 1), found.of(0), found.share(1, 0)
        (0.5, [(1, 0.5)], 0.0)
    """
    pairs, counts = torch.stack([labels, nearest], dim=1)[known].unique(dim=0, return_counts=True)
    asked, sizes = labels[known].unique(return_counts=True)
    found: dict[int, dict[int, int]] = {number: {} for number in asked.tolist()}
    for (a, b), count in zip(pairs.tolist(), counts.tolist(), strict=True):
        found[a][b] = count
    return Confusion(dict(zip(asked.tolist(), sizes.tolist(), strict=True)), found)


def strongest(found: Confusion, most: int | None = None) -> list[tuple[int, int, int, float]]:
    """The pairs of different classes with the largest shares: ``(a, b, queries, share)``.

    Of equal shares the one with more queries comes first.
    """
    wrong = [(a, b, n, found.share(a, b)) for a, counts in found.counts.items() for b, n in counts.items() if a != b]
    return sorted(wrong, key=lambda pair: (-pair[3], -pair[2], pair[:2]))[:most]


def shown_classes(found: Confusion, chosen: Sequence[int], most: int) -> list[int]:
    """Classes for a table of at most so many: all, or the chosen ones and those of the strongest pairs, side by side.

    Args:
        found: of all classes.
        chosen: put first; those without queries are left out.
        most: size of the table; the chosen ones are shown even if they are more.
    """
    everything = sorted(found.queries)
    if len(everything) <= most:
        return everything
    listed = dict.fromkeys(number for number in chosen if number in found.queries)
    for a, b, *_ in strongest(found):
        for number in (a, b):
            if len(listed) < most and number in found.queries:
                listed.setdefault(number)
    return list(listed)

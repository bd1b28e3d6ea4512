"""The best k of each row of scores, with ties settled by the lower index.

``torch.topk`` returns any of the equal values, in any order; here both are put right, in the rows concerned,
a part of them at a time: where every row holds ties, their copies would be larger than the scores.
"""

from __future__ import annotations

import torch
from torch import Tensor

from polyanchor.search.scores import parts
from polyanchor.types import Neighbours


def best(scores: Tensor, k: int) -> Neighbours:
    """The k best columns of each row, best first, the lower column first among equals.

    Args:
        scores: ``(Q, N)`` floating, without NaN.
        k: from 1 to N.

    Returns:
        ``Neighbours`` with ``(Q, k)`` ids and scores, the same as a stable sort of the whole row gives. They may be
        views of wider tensors.

    Example:
        >>> best(torch.tensor([[0.5, 0.9, 0.5, 0.5]]), 3).ids
        tensor([[1, 0, 2]])
    """
    size = scores.shape[1]
    values, ids = scores.topk(min(k + 1, size), dim=1)
    if k < size:
        undecided = (values[:, k - 1] == values[:, k]).nonzero().squeeze(1)  # who is inside is a matter of luck
        values, ids = values[:, :k], ids[:, :k]
        for rows in parts(undecided, scores):
            ids[rows] = _lowest(scores[rows], values[rows], ids[rows])
    unordered = (values[:, 1:] == values[:, :-1]).any(dim=1).nonzero().squeeze(1)
    for rows in parts(unordered, scores):
        ids[rows] = _by_id_within_ties(values[rows], ids[rows])
    return Neighbours(ids, values)


def _lowest(scores: Tensor, values: Tensor, ids: Tensor) -> Tensor:
    """``ids`` with those of the last value replaced by the lowest columns that have this value."""
    size, k = scores.shape[1], ids.shape[1]
    last = values[:, -1:]  # (q, 1)
    column = torch.arange(size, dtype=torch.int32, device=scores.device)
    tied = torch.where(scores == last, -column, -size)  # distinct where tied, so topk leaves nothing open
    lowest = -tied.topk(k, dim=1).values  # (q, k) ascending
    above = values > last  # (q, k), the first columns of each row
    place = torch.arange(k, device=scores.device) - above.sum(dim=1, keepdim=True)
    return torch.where(above, ids, lowest.gather(1, place.clamp(min=0)).long())


def _by_id_within_ties(values: Tensor, ids: Tensor) -> Tensor:
    """``ids`` in ascending order wherever neighbouring values are equal."""
    by_id = ids.argsort(dim=1)
    by_value = values.gather(1, by_id).argsort(dim=1, descending=True, stable=True)
    return ids.gather(1, by_id).gather(1, by_value)

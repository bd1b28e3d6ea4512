"""How far down the whole gallery the first item of the query's class stands, without sorting it."""

from __future__ import annotations

import torch
from torch import Tensor

from polyanchor.search.scores import parts


def first_match_rank(scores: Tensor, rows: Tensor, labels: Tensor, gallery_labels: Tensor) -> Tensor:
    r"""Rank, among all scores of a query, of the first item with the query's label.

    With m the best scored item of the query's label (the lowest index among equals),

    .. math:: \text{rank} = 1 + |\{n : s_n > s_m\}| + |\{n < m : s_n = s_m\}|

    Args:
        scores: ``(Q, N)`` floating; -inf for an item that the query does not search, which is itself.
        rows: ``(q,)`` int64, the rows of ``scores`` wanted.
        labels: ``(q,)`` int64, labels of these rows' queries.
        gallery_labels: ``(N,)`` int64.

    Returns:
        ``(q,)`` int64, from 1; 0 where no item above -inf has the label.

    Example:
        >>> scores = torch.tensor([[0.9, 0.9, 0.1], [0.3, 0.2, -torch.inf]])
        >>> first_match_rank(scores, torch.tensor([0, 1]), torch.tensor([7, 5]), torch.tensor([8, 7, 5]))
        tensor([2, 0])
    """
    ranks = torch.zeros_like(labels)
    column = torch.arange(scores.shape[1], dtype=torch.int32, device=scores.device)
    for some in parts(torch.arange(len(rows), device=rows.device), scores):
        block, match = scores[rows[some]], labels[some, None] == gallery_labels  # (part, N)
        top, first = block.masked_fill(match.logical_not_(), -torch.inf).max(dim=1, keepdim=True)  # first of equals
        before = ((block == top) & (column < first)).logical_or_(block > top)
        ranks[some] = (before.sum(dim=1) + 1).masked_fill(top.squeeze(1) == -torch.inf, 0)
    return ranks

"""Which neighbours are of the query's class, and how many such items there are. Labels are only compared."""

from __future__ import annotations

import torch
from torch import Tensor


def hits_at_rank(ids: Tensor, labels: Tensor, gallery_labels: Tensor) -> Tensor:
    """Mark the neighbours that have the query's label.

    Args:
        ids: ``(Q, k)`` int64, gallery rows, best first; -1 behind the end of a shorter list.
        labels: ``(Q,)`` int64, of the queries.
        gallery_labels: ``(N,)`` int64.

    Returns:
        ``(Q, k)`` bool.

    Example:
        >>> hits_at_rank(torch.tensor([[2, 0]]), torch.tensor([7]), torch.tensor([7, 7, -1]))
        tensor([[False,  True]])
    """
    return (gallery_labels[ids] == labels[:, None]).logical_and_(ids >= 0)


def relevant_counts(labels: Tensor, gallery_labels: Tensor | None = None) -> Tensor:
    """Count the items with the query's label in the gallery, or among the other queries if there is none.

    Args:
        labels: ``(Q,)`` int64, of the queries; any numbers.
        gallery_labels: ``(N,)`` int64, or None for leave-one-out.

    Returns:
        ``(Q,)`` int64.

    Example:
        >>> relevant_counts(torch.tensor([5, -3, 5]))
        tensor([1, 0, 1])
        >>> relevant_counts(torch.tensor([5, -3]), torch.tensor([5, 5, 8]))
        tensor([2, 0])
    """
    if gallery_labels is None:
        _, which, count = labels.unique(return_inverse=True, return_counts=True)
        return count[which] - 1
    known, count = gallery_labels.unique(return_counts=True)  # sorted
    place = torch.searchsorted(known, labels).clamp(max=len(known) - 1)
    return count[place].masked_fill(known[place] != labels, 0)


def first_hit(hits: Tensor) -> Tensor:
    """Rank of the first hit, from 1; 0 where there is none.

    Example:
        >>> first_hit(torch.tensor([[False, True, True], [False, False, False]]))
        tensor([2, 0])
    """
    rank = hits.view(torch.uint8).argmax(dim=1) + 1  # argmax gives the first of equal maxima
    return rank.masked_fill(~hits.any(dim=1), 0)

"""Relevance of neighbours to a query: hits, counts of relevant items, and graded gains."""

from __future__ import annotations

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor.functional.ndcg import dcg, ideal_gains

_ROWS_AT_ONCE = 256  # classes whose ideal lists are built at once; bounds the copies of the table
_LARGEST = 1e300  # a list of 10^8 such gains still has a finite sum


def hits_at_rank(ids: Tensor, labels: Tensor, gallery_labels: Tensor) -> Tensor:
    """Mark the neighbours that have the query's label.

    Args:
        ids: ``(Q, k)`` int64, gallery rows, best first; -1 pads a shorter list.
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
    classes, count = gallery_labels.unique(return_counts=True)  # sorted
    index = torch.searchsorted(classes, labels).clamp(max=len(classes) - 1)
    return count[index].masked_fill(classes[index] != labels, 0)


def first_hit(hits: Tensor) -> Tensor:
    """``(Q, k)`` hits -> ``(Q,)`` rank of the first, from 1; 0 where there is none."""
    rank = hits.view(torch.uint8).argmax(dim=1) + 1  # argmax gives the first of equal maxima
    return rank.masked_fill(~hits.any(dim=1), 0)


def checked_table(gains: Tensor, *labels: Tensor) -> Tensor:
    """The table of gains in float64 (not every integer dtype has comparisons), on the device of the labels.

    Raises:
        TypeError: ``gains`` is not a real tensor.
        ValueError: it is not ``(C, C)``, a value is negative, not finite or above 1e300, or a label is outside ``[0,
            C)``.
    """
    _check.real("gains", gains, "(C, C)")
    if gains.ndim != 2 or gains.shape[0] != gains.shape[1] or len(gains) == 0:
        raise InputError(f"gains must have shape (C, C), one row and column per class, got {tuple(gains.shape)}")
    table = gains.detach().to(labels[0].device).double()
    wrong = (~((table >= 0) & (table <= _LARGEST))).nonzero()  # NaN is neither
    if len(wrong):
        row, column = wrong[0].tolist()
        raise InputError(
            f"gains must be finite, 0 or more and at most {_LARGEST:g}, got {table[row, column].item()} at "
            f"[{row}, {column}]; give 0 to classes that are not worth finding, and divide the table by its largest "
            "gain if it is too large: nDCG does not change"
        )
    for part in labels:
        _check.class_range(part, len(table), advice=f"Number the classes as the rows of gains, {tuple(table.shape)}")
    return table


def gains_at_rank(ids: Tensor, labels: Tensor, gallery_labels: Tensor, gains: Tensor) -> Tensor:
    """Gain of each neighbour for its query.

    Args:
        ids: ``(Q, k)`` int64, gallery rows, best first.
        labels: ``(Q,)`` int64, of the queries, in ``[0, C)``.
        gallery_labels: ``(N,)`` int64, in ``[0, C)``.
        gains: ``(C, C)``, see :func:`checked_table`.

    Returns:
        ``(Q, k)`` float64.

    Example:
        >>> table = torch.tensor([[3, 1], [0, 3]])
        >>> gains_at_rank(torch.tensor([[1, 0]]), torch.tensor([0]), torch.tensor([0, 1]), table)
        tensor([[1., 3.]], dtype=torch.float64)
    """
    return gains[labels[:, None], gallery_labels[ids]].double()


def ideal_dcg_graded(
    labels: Tensor, gains: Tensor, cutoffs: tuple[int, ...], *, gallery_labels: Tensor | None = None
) -> dict[int, Tensor]:
    """The largest DCG@k of any order of the whole gallery, from class counts alone.

    Two queries of one class have the same ideal list, so it is built once per class.

    Args:
        labels: ``(Q,)`` int64, of the queries, in ``[0, C)``.
        gains: ``(C, C)``, see :func:`checked_table`.
        cutoffs: the values of k.
        gallery_labels: ``(N,)`` int64, in ``[0, C)``; None for leave-one-out, where a query's own class holds
            one item less.

    Returns:
        k -> ``(Q,)`` float64.

    Example:
        >>> ideal_dcg_graded(torch.tensor([0, 1, 1]), torch.tensor([[3, 1], [1, 3]]), (1,))
        {1: tensor([1., 3., 3.], dtype=torch.float64)}
    """
    classes, which = labels.unique(return_inverse=True)
    counts = torch.bincount(labels if gallery_labels is None else gallery_labels, minlength=len(gains))
    parts: dict[int, list[Tensor]] = {k: [] for k in cutoffs}
    for rows in classes.split(_ROWS_AT_ONCE):
        available = counts.repeat(len(rows), 1)  # (rows, C)
        if gallery_labels is None:
            available[torch.arange(len(rows), device=rows.device), rows] -= 1
        best = ideal_gains(gains[rows], available, k=max(cutoffs))
        for k in cutoffs:
            parts[k].append(dcg(best[:, :k]))
    return {k: torch.cat(part)[which] for k, part in parts.items()}

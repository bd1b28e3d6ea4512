"""The first item of the query's class and its rank in the whole gallery, without sorting."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from polyanchor.search.scores import SearchInputs, padded_rows, product, row_chunks
from polyanchor.search.symmetric import Targets

_TOGETHER = 192  # rows of small classes that are multiplied at once
_AT_ONCE = 1008  # rows of a large class that are multiplied at once


def first_match_rank(scores: Tensor, rows: Tensor, labels: Tensor, gallery_labels: Tensor) -> Tensor:
    r"""Rank, among all scores of a query, of the first item with the query's label; 0 where there is none.

    With m the best scored item of the query's label (the lowest index among equals),

    .. math:: \text{rank} = 1 + |\{n : s_n > s_m\}| + |\{n < m : s_n = s_m\}|

    Args:
        scores: ``(Q, N)`` floating; -inf for the query itself.
        rows: ``(q,)`` int64, the rows of ``scores`` to rank.
        labels: ``(q,)`` int64, labels of these rows' queries.
        gallery_labels: ``(N,)`` int64.
    """
    ranks = torch.zeros_like(labels)
    column = torch.arange(scores.shape[1], dtype=torch.int32, device=scores.device)
    for chunk in row_chunks(torch.arange(len(rows), device=rows.device), scores):
        block, match = scores[rows[chunk]], labels[chunk, None] == gallery_labels  # (chunk, N)
        top, first = block.masked_fill(match.logical_not_(), -torch.inf).max(dim=1, keepdim=True)  # first of equals
        before = ((block == top) & (column < first)).logical_or_(block > top)
        ranks[chunk] = (before.sum(dim=1) + 1).masked_fill(top.squeeze(1) == -torch.inf, 0)
    return ranks


def first_matches(inputs: SearchInputs, labels: Tensor) -> Targets:
    """The best scored other item of each row's ``(N,)`` label, the lowest index among equals."""
    order = labels.argsort(stable=True)  # within a class in order of the rows, as max gives the first of equals
    best = Targets(torch.full_like(labels, -1), inputs.gallery.new_full((inputs.size,), -torch.inf))
    for start, stop in _runs(labels.unique(return_counts=True)[1].tolist()):
        items = order[start:stop]
        vectors, label = padded_rows(inputs.gallery[items]), labels[items]
        for chunk in torch.arange(stop - start, device=items.device).split(_AT_ONCE):
            scores = product(vectors[chunk[0] : chunk[0] + _AT_ONCE], vectors)
            other = label[chunk, None] != label
            other[torch.arange(len(chunk), device=chunk.device), chunk] = True
            top, which = scores[: len(chunk), : len(items)].masked_fill(other, -torch.inf).max(dim=1)
            best.ids[items[chunk]] = items[which].masked_fill(top == -torch.inf, -1)
            best.scores[items[chunk]] = top
    return best


def _runs(counts: list[int]) -> Iterator[tuple[int, int]]:
    """First and last + 1 row of runs of neighbouring classes with at least ``_TOGETHER`` rows."""
    start = stop = 0
    for count in counts:
        stop += count
        if stop - start >= _TOGETHER:
            yield start, stop
            start = stop
    if stop > start:
        yield start, stop

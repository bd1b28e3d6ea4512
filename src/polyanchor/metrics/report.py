"""The report: what the labels say before the search, the measures of each block, the means at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from polyanchor.functional import discounted, measures
from polyanchor.metrics import gains as graded
from polyanchor.metrics import relevance
from polyanchor.types import Neighbours, RetrievalReport

Deeper = Callable[[Tensor], Tensor]
"""Rows of a block -> ranks, in the whole gallery, of their first hits."""


@dataclass(frozen=True)
class Judgement:
    """What the labels alone say about each query.

    Attributes:
        labels: ``(Q,)`` int64.
        gallery_labels: ``(N,)`` int64; in leave-one-out the same as ``labels``.
        n_relevant: ``(Q,)`` int64, other items of the query's class.
        ideal: k -> ``(Q,)`` float64, the ideal DCG@k.
        gains: ``(C, C)`` float64, or None for gain 1 within the class and 0 outside.
        depths: ``(Q,)`` int64, how many neighbours the measures need of each query: the largest k, or R.
    """

    labels: Tensor
    gallery_labels: Tensor
    n_relevant: Tensor
    ideal: Mapping[int, Tensor]
    gains: Tensor | None
    depths: Tensor

    @property
    def depth(self) -> int:
        """The largest of the depths."""
        return int(self.depths.max())


def judge(
    labels: Tensor,
    cutoffs: tuple[int, ...],
    *,
    gallery_labels: Tensor | None = None,
    gains: Tensor | None = None,
) -> Judgement:
    """Count what can be found.

    Args:
        labels: ``(Q,)`` int64, of the queries.
        cutoffs: the k of recall, precision and nDCG.
        gallery_labels: ``(N,)`` int64, or None for leave-one-out.
        gains: ``(C, C)`` class-to-class gains, or None.

    Raises:
        TypeError: ``gains`` is not a real tensor.
        ValueError: ``gains`` is not a table of gains, or a label is outside of it.

    Example:
        >>> import torch
        >>> judge(torch.tensor([4, 4, 4, 9]), (1,)).depth
        2
    """
    n_relevant = relevance.relevant_counts(labels, gallery_labels)
    there = labels if gallery_labels is None else gallery_labels
    if gains is None:
        ideal = {k: discounted.ideal_dcg_binary(n_relevant, k=k) for k in cutoffs}
    else:
        gains = graded.checked_table(gains, labels, there)
        ideal = graded.ideal_dcg_graded(labels, gains, cutoffs, gallery_labels=gallery_labels)
    return Judgement(labels, there, n_relevant, ideal, gains, n_relevant.clamp(min=max(cutoffs)))


def measure(found: Neighbours, start: int, judgement: Judgement, deeper: Deeper) -> dict[str, Tensor]:
    """The measures of one block of queries.

    Hits and counts are checked once for all of them: each check waits for an accelerator.

    Args:
        found: neighbours of queries ``start, start + 1, ...``, at least ``judgement.depths`` of each; ids -1 behind
            the end of a shorter list.
        start: number of the first query.
        judgement: of all queries.
        deeper: asked for the rows that have a hit, but none among their neighbours.

    Returns:
        Measure name -> ``(queries of the block,)`` float64.
    """
    rows = slice(start, start + len(found.ids))
    ids = found.ids.to(judgement.labels.device)
    labels = judgement.labels[rows]
    hits = relevance.hits_at_rank(ids, labels, judgement.gallery_labels)  # (q, depth)
    n_relevant = measures.fitting(hits, judgement.n_relevant[rows])
    worth = hits
    if judgement.gains is not None:
        near = ids[:, : max(judgement.ideal)]
        worth = graded.gains_at_rank(near, labels, judgement.gallery_labels, judgement.gains)
    values = {}
    for k, ideal in judgement.ideal.items():
        values[f"recall@{k}"] = measures.recall_at_k(hits[:, :k], n_relevant, check=False)
        values[f"precision@{k}"] = measures.precision_at_k(hits[:, :k], n_relevant, check=False)
        values[f"ndcg@{k}"] = discounted.ndcg_at_k(worth[:, :k], ideal[rows], check=False)
    values["r_precision"] = measures.r_precision(hits, n_relevant, check=False)
    values["map@r"] = measures.map_at_r(hits, n_relevant, check=False)
    first = relevance.first_hit(hits)
    unseen = ((first == 0) & (n_relevant > 0)).nonzero().squeeze(1)
    if len(unseen):
        first[unseen] = deeper(unseen)
    values["mrr"] = measures.reciprocal_rank(first, check=False)
    return values


def join(blocks: Iterable[tuple[int, Mapping[str, Tensor]]], queries: int) -> dict[str, Tensor]:
    """The blocks' measures in one place, which is there before the second block.

    Kept as they come, they would lie between the freed arrays of the blocks, and malloc gives an aligned array no freed
    place of its own size: each block would take new memory, as if its neighbours were kept.

    Args:
        blocks: ``(number of the first query, measures)``, what :func:`measure` gave.
        queries: number of all queries, Q.

    Returns:
        Measure name -> ``(Q,)`` float64.

    Example:
        >>> import torch
        >>> join(((start, {"mrr": torch.full((2,), start)}) for start in (2, 0)), 4)
        {'mrr': tensor([0, 0, 2, 2])}
    """
    joined: dict[str, Tensor] = {}
    for start, values in blocks:
        for name, value in values.items():
            if name not in joined:
                joined[name] = value.new_empty(queries)
            joined[name][start : start + len(value)] = value
    return joined


def report(
    values: Mapping[str, Tensor], judgement: Judgement, *, gallery: int, notes: Sequence[str] = ()
) -> RetrievalReport:
    """Take the means.

    Args:
        values: what :func:`join` gave.
        judgement: of all queries.
        gallery: number of items that each query was searched in.
        notes: for the reader.

    Returns:
        The report, its tensors on the CPU.
    """
    per_query = {name: value.cpu() for name, value in values.items()}
    return RetrievalReport(
        per_query=per_query,
        means={name: float(value.nanmean()) for name, value in per_query.items()},
        undefined=int(per_query[f"ndcg@{max(judgement.ideal)}"].isnan().sum()),
        queries=len(judgement.labels),
        gallery=gallery,
        notes=tuple(notes),
        labels=judgement.labels.cpu(),
    )

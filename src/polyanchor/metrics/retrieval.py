"""Evaluation of embeddings: exact search and all metrics, in one pass over blocks of queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError, InputTypeError
from polyanchor.functional import ndcg
from polyanchor.functional import retrieval as measures
from polyanchor.metrics import relevance
from polyanchor.search import exact, scores, symmetric
from polyanchor.search.first_match import first_match_rank, first_matches
from polyanchor.types import Neighbours, RetrievalReport

Deeper = Callable[[Tensor], Tensor]
"""Rows of a block -> ranks, in the whole gallery, of their first hits."""


def evaluate_retrieval(
    embeddings: Tensor,
    labels: Tensor,
    *,
    gallery: Tensor | None = None,
    gallery_labels: Tensor | None = None,
    k: int | Sequence[int] = (1, 2, 4, 8),
    gains: Tensor | None = None,
    notes: Sequence[str] = (),
) -> RetrievalReport:
    r"""Measure how well items of one class are found by cosine similarity.

    Without a gallery every item is searched among all others (leave-one-out); it is left out by identity, so
    copies of it under any label stay in the list. With a gallery, the embeddings are queries, and nothing is
    left out. Every pair is compared, in blocks: memory grows with N, not with its square. Equal similarities
    are ranked in order of their gallery rows.

    .. math:: \text{nDCG@}k(q) = \frac{\sum_{r=1}^{k} g(q, r) / \log_2(r + 1)}
        {\text{the same for the best order of the whole gallery}}

    The other formulas are in :mod:`polyanchor.functional.retrieval`. Queries without a relevant item are NaN in
    ``per_query``, left out of ``means``, and counted in ``undefined``.

    Args:
        embeddings: ``(Q, D)`` floating, of any length; half precision is computed in float32.
        labels: ``(Q,)`` of any integer dtype, any numbers.
        gallery: ``(N, D)`` floating, or None for leave-one-out.
        gallery_labels: ``(N,)`` integer, where there is a gallery.
        k: cut-offs of recall, precision and nDCG: an int or several.
        gains: ``(C, C)`` table of gains, ``gains[query label, gallery label]``, finite and 0 or more; labels
            are then in ``[0, C)``. It changes nDCG alone; the other measures ask for the same class. None for
            gain 1 within the class and 0 outside.
        notes: sentences to keep with the numbers.

    Returns:
        ``RetrievalReport`` with ``recall@k precision@k ndcg@k`` for each k, ``mrr r_precision map@r``; its
        tensors are float64, on the CPU.

    Raises:
        TypeError: embeddings are not a floating tensor, labels not an integer one, gains not a real one, or k
            not ints. Arrays and lists have to be made tensors with ``torch.as_tensor``.
        ValueError: shapes or devices do not fit, a value is NaN or infinite, k is larger than the number of
            items that a query is searched in, or gallery and gallery_labels do not come together.

    References:
        Formulas, undefined cases and same-named numbers elsewhere: the documentation's page on measures.

    Example:
        >>> vectors = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [0.6, 0.8]])
        >>> report = evaluate_retrieval(vectors, torch.tensor([0, 0, 1, 1, 2]), k=(1, 2))
        >>> report.means["recall@1"], report.means["map@r"], report.undefined
        (1.0, 1.0, 1)
    """
    labels = _labelled("embeddings", embeddings, "labels", labels, "Q")
    if (gallery is None) != (gallery_labels is None):
        raise InputError("gallery and gallery_labels must come together, got one of them; pass both or neither")
    if gallery is not None and gallery_labels is not None:
        gallery_labels = _labelled("gallery", gallery, "gallery_labels", gallery_labels, "N")
        _check.one_device("embeddings", embeddings, "gallery", gallery)
    if isinstance(notes, str):
        raise InputTypeError("notes must be a sequence of sentences, got one string; write notes=(...,)")
    if gallery is not None and embeddings.shape == gallery.shape and torch.equal(embeddings, gallery):
        notes = (*notes, "the gallery is the queries, so each finds itself; leave it out to leave each query out")
    reachable = len(embeddings) - 1 if gallery is None else len(gallery)
    if reachable == 0:
        raise InputError("embeddings must have at least 2 rows for leave-one-out, got 1; pass a gallery as well")
    ks = cutoffs(k, largest=reachable)
    with torch.no_grad():
        inputs = scores.leave_one_out(embeddings) if gallery is None else scores.query_gallery(embeddings, gallery)
        relevant = compute_relevance(labels, ks, gallery_labels=gallery_labels, gains=gains)
        values = join(_measured(inputs, relevant), len(labels))
        return report(values, relevant, gallery=reachable, notes=notes)


def cutoffs(k: int | Sequence[int], *, largest: int | None = None) -> tuple[int, ...]:
    """One or several cut-offs as a tuple, without duplicates, in their order; each from 1 to ``largest``."""
    values = [k] if isinstance(k, int | str) else list(k) if isinstance(k, Sequence) else [k]
    if not values:
        raise InputError("k must hold at least one cut-off, got none; for example k=(1, 2, 4, 8)")
    values = [_check.count("k", value) for value in values]
    for value in values:
        if largest is not None and value > largest:
            raise InputError(
                f"k must be at most {largest}, the number of items that a query is searched in, got {value}; "
                f"leave out the cut-offs above {largest}"
            )
    return tuple(dict.fromkeys(values))


@dataclass(frozen=True)
class Relevance:
    """What the labels determine about each query.

    Attributes:
        labels: ``(Q,)`` int64.
        gallery_labels: ``(N,)`` int64; in leave-one-out the same as ``labels``.
        n_relevant: ``(Q,)`` int64, other items of the query's class.
        ideal: k -> ``(Q,)`` float64, the ideal DCG@k.
        gains: ``(C, C)`` float64, or None for gain 1 within the class and 0 outside.
        depths: ``(Q,)`` int64, neighbours that the metrics need of each query: the largest k, or R.
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


def compute_relevance(
    labels: Tensor,
    cutoffs: tuple[int, ...],
    *,
    gallery_labels: Tensor | None = None,
    gains: Tensor | None = None,
) -> Relevance:
    """Count the relevant items of each query, and their ideal DCG; arguments as in :func:`evaluate_retrieval`."""
    n_relevant = relevance.relevant_counts(labels, gallery_labels)
    searched = labels if gallery_labels is None else gallery_labels
    if gains is None:
        ideal = {k: ndcg.ideal_dcg_binary(n_relevant, k=k) for k in cutoffs}
    else:
        gains = relevance.checked_table(gains, labels, searched)
        ideal = relevance.ideal_dcg_graded(labels, gains, cutoffs, gallery_labels=gallery_labels)
    return Relevance(labels, searched, n_relevant, ideal, gains, n_relevant.clamp(min=max(cutoffs)))


def block_metrics(neighbours: Neighbours, start: int, relevant: Relevance, deeper: Deeper) -> dict[str, Tensor]:
    """Metric name -> values of the queries ``start, start + 1, ...``.

    Hits and counts are checked once for all metrics, because each check waits for an accelerator.

    Args:
        neighbours: at least ``relevant.depths`` of each query; ids -1 pad shorter lists.
        start: number of the first query.
        relevant: of all queries.
        deeper: called for the rows whose first hit is not among their neighbours.
    """
    rows = slice(start, start + len(neighbours.ids))
    ids = neighbours.ids.to(relevant.labels.device)
    labels = relevant.labels[rows]
    hits = relevance.hits_at_rank(ids, labels, relevant.gallery_labels)  # (q, depth)
    n_relevant = measures.fitting(hits, relevant.n_relevant[rows])
    worth = hits
    if relevant.gains is not None:
        near = ids[:, : max(relevant.ideal)]
        worth = relevance.gains_at_rank(near, labels, relevant.gallery_labels, relevant.gains)
    values = {}
    for k, ideal in relevant.ideal.items():
        values[f"recall@{k}"] = measures.recall_at_k(hits[:, :k], n_relevant, check=False)
        values[f"precision@{k}"] = measures.precision_at_k(hits[:, :k], n_relevant, check=False)
        values[f"ndcg@{k}"] = ndcg.ndcg_at_k(worth[:, :k], ideal[rows], check=False)
    values["r_precision"] = measures.r_precision(hits, n_relevant, check=False)
    values["map@r"] = measures.map_at_r(hits, n_relevant, check=False)
    first = relevance.first_hit(hits)
    unseen = ((first == 0) & (n_relevant > 0)).nonzero().squeeze(1)
    if len(unseen):
        first[unseen] = deeper(unseen)
    values["mrr"] = measures.reciprocal_rank(first, check=False)
    return values


def join(blocks: Iterable[tuple[int, Mapping[str, Tensor]]], queries: int) -> dict[str, Tensor]:
    """The metrics of all blocks, in arrays of ``queries`` that are allocated with the first block.

    Kept block by block, they would fragment the heap between the freed arrays of the blocks, and malloc would take new
    memory for each block, as if its neighbours were kept.
    """
    whole: dict[str, Tensor] = {}
    for start, values in blocks:
        for name, value in values.items():
            if name not in whole:
                whole[name] = value.new_empty(queries)
            whole[name][start : start + len(value)] = value
    return whole


def report(
    values: Mapping[str, Tensor], relevant: Relevance, *, gallery: int, notes: Sequence[str] = ()
) -> RetrievalReport:
    """The report of all queries' metrics, its tensors on the CPU."""
    per_query = {name: value.cpu() for name, value in values.items()}
    return RetrievalReport(
        per_query=per_query,
        means={name: float(value.nanmean()) for name, value in per_query.items()},
        undefined=int(per_query[f"ndcg@{max(relevant.ideal)}"].isnan().sum()),
        queries=len(relevant.labels),
        gallery=gallery,
        notes=tuple(notes),
        labels=relevant.labels.cpu(),
    )


def _labelled(vectors_name: str, vectors: Tensor, labels_name: str, labels: Tensor, rows: str) -> Tensor:
    """Require vectors and as many labels, on one device; the labels as int64, on a device that has float64."""
    for name, value in ((vectors_name, vectors), (labels_name, labels)):
        if not isinstance(value, Tensor):
            raise InputTypeError(
                f"{name} must be a torch tensor, got {type(value).__name__}; use torch.as_tensor({name})"
            )
    _check.vectors(vectors_name, vectors, rows=rows)
    numbers = _check.integer_labels(labels_name, labels, len(vectors))
    _check.one_device(vectors_name, vectors, labels_name, labels)
    return numbers.cpu() if numbers.device.type == "mps" else numbers


def _measured(inputs: scores.SearchInputs, relevant: Relevance) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """First query and metrics of each block of queries."""
    labels, gallery_labels = (part.to(inputs.gallery.device) for part in (relevant.labels, relevant.gallery_labels))
    plan = symmetric.pays(inputs, relevant.depths)
    swept = symmetric.sweep(inputs, plan, first_matches(inputs, labels)) if plan else None
    if swept is not None:
        for start, neighbours, deeper in swept:
            yield start, block_metrics(neighbours, start, relevant, deeper)
        return
    for start, neighbours, block in exact.walk(inputs, relevant.depth):

        def deeper(rows: Tensor, start: int = start, block: Tensor = block) -> Tensor:
            on_block = rows.to(block.device)
            return first_match_rank(block, on_block, labels[start + on_block], gallery_labels).to(rows.device)

        yield start, block_metrics(neighbours, start, relevant, deeper)

"""Embeddings and labels in, retrieval report out: exact search and every measure in one pass over blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError, InputTypeError
from polyanchor.metrics import report as reporting
from polyanchor.metrics.cutoffs import cutoffs
from polyanchor.search import exact, scores, symmetric
from polyanchor.search.first_match import first_match_rank, first_matches
from polyanchor.types import RetrievalReport


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

    Without a gallery every item is searched among all others (leave-one-out); it is left out by its number,
    so copies of it under any label stay in the list. With a gallery, the embeddings are queries, and nothing
    is left out. Every pair is compared, in blocks: memory grows with N, not with its square. Equal
    similarities stand in order of their gallery rows.

    .. math:: \text{nDCG@}k(q) = \frac{\sum_{r=1}^{k} g(q, r) / \log_2(r + 1)}
        {\text{the same for the best order of the whole gallery}}

    The other formulas stand with the functions of :mod:`polyanchor.functional.measures`. Queries that have
    nothing to find are NaN in ``per_query``, left out of ``means``, and counted in ``undefined``.

    Args:
        embeddings: ``(Q, D)`` floating, of any length; half precision is computed in float32.
        labels: ``(Q,)`` of any integer dtype, any numbers.
        gallery: ``(N, D)`` floating, or None for leave-one-out.
        gallery_labels: ``(N,)`` integer, where there is a gallery.
        k: cut-offs of recall, precision and nDCG: an int or several.
        gains: ``(C, C)`` table of gains, ``gains[query label, gallery label]``, finite and 0 or more; labels
            are then in ``[0, C)``. It changes nDCG alone; the other measures ask for the same class. None for
            gain 1 within the class and 0 outside.
        notes: sentences to be kept with the numbers.

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
    chosen = cutoffs(k, largest=reachable)
    with torch.no_grad():
        task = scores.leave_one_out(embeddings) if gallery is None else scores.against(embeddings, gallery)
        judgement = reporting.judge(labels, chosen, gallery_labels=gallery_labels, gains=gains)
        values = reporting.join(_measured(task, judgement), len(labels))
        return reporting.report(values, judgement, gallery=reachable, notes=notes)


def _labelled(vectors_name: str, vectors: Tensor, labels_name: str, labels: Tensor, rows: str) -> Tensor:
    """Require vectors and as many labels, on one device; the labels as int64, where float64 can be used."""
    for name, value in ((vectors_name, vectors), (labels_name, labels)):
        if not isinstance(value, Tensor):
            raise InputTypeError(
                f"{name} must be a torch tensor, got {type(value).__name__}; use torch.as_tensor({name})"
            )
    _check.vectors(vectors_name, vectors, rows=rows)
    numbers = _check.integer_labels(labels_name, labels, len(vectors))
    _check.one_device(vectors_name, vectors, labels_name, labels)
    return numbers.cpu() if numbers.device.type == "mps" else numbers


def _measured(task: scores.Task, judgement: reporting.Judgement) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Number of the first query and the measures, a block of queries at a time."""
    labels, gallery_labels = (part.to(task.gallery.device) for part in (judgement.labels, judgement.gallery_labels))
    chosen = symmetric.pays(task, judgement.depths)
    swept = symmetric.sweep(task, chosen, first_matches(task, labels)) if chosen else None
    if swept is not None:
        for start, found, deeper in swept:
            yield start, reporting.measure(found, start, judgement, deeper)
        return
    for start, found, block in exact.walk(task, judgement.depth):

        def deeper(rows: Tensor, start: int = start, block: Tensor = block) -> Tensor:
            here = rows.to(block.device)
            return first_match_rank(block, here, labels[start + here], gallery_labels).to(rows.device)

        yield start, reporting.measure(found, start, judgement, deeper)

"""Retrieval reports of a model on a split, and of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from polyanchor.datasets.items import Items
from polyanchor.datasets.transforms import Transform
from polyanchor.distributed.comm import Ranks
from polyanchor.metrics.retrieval import evaluate_retrieval
from polyanchor.runs.embed import embed
from polyanchor.types import Embeddings, RetrievalReport


def left_out(skipped: Sequence[str], where: str = "") -> str:
    """The note about images that could not be read.

    Example:
        >>> left_out(["a.png"], " in training")
        '1 image could not be read and was left out in training: a.png'
    """
    if len(skipped) == 1:
        return f"1 image could not be read and was left out{where}: {skipped[0]}"
    return f"{len(skipped)} images could not be read and were left out{where}, first {skipped[0]}"


def evaluate_items(
    model: nn.Module,
    test: Items,
    gallery: Items | None,
    transform: Transform | None,
    *,
    k: Sequence[int],
    notes: tuple[str, ...] = (),
    workers: int = 0,
    on_bad: Literal["stop", "skip"] = "stop",
    channels_last: bool = True,
    description: str = "test",
    ranks: Ranks | None = None,
) -> RetrievalReport:
    """Embed the test items (and the gallery) and evaluate retrieval.

    Args:
        model: inputs -> unit vectors.
        test: the queries; if ``gallery`` is None they are searched among each other, each left out of its own search.
        gallery: the items to search.
        transform: image -> network input.
        k: cut-offs.
        notes: put into the report; the number of skipped images is added.
        workers: see :func:`~polyanchor.runs.embed.embed`, also for the next two.
        on_bad: ``"stop"`` or ``"skip"``.
        channels_last: memory format of the images.
        description: of the progress bar of the queries.
        ranks: processes that share the embedding; all call this, rank 0 searches, and all get the report.
    """
    ranks = ranks or Ranks()
    options: dict[str, Any] = {"workers": workers, "on_bad": on_bad, "channels_last": channels_last, "ranks": ranks}
    queries, skipped = embed(model, test, transform, description=description, **options)
    searched: Embeddings | None = None
    if gallery is not None:
        searched, more = embed(model, gallery, transform, description="gallery", **options)
        skipped += more
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    report = ranks.run_on_rank0(lambda: evaluate_embeddings(queries, searched, k=k, device=device))
    if skipped:
        notes += (left_out(skipped),)
    return replace(report, notes=report.notes + notes)


def evaluate_embeddings(
    queries: Embeddings,
    gallery: Embeddings | None = None,
    *,
    k: Sequence[int],
    device: torch.device | str = "cpu",
) -> RetrievalReport:
    """Evaluate retrieval by the classes, and by finer classes where queries (and gallery) have them.

    Args:
        queries: searched among each other, each left out of its own search, if ``gallery`` is None.
        gallery: the items to search.
        k: cut-offs.
        device: of the search.

    Example:
        >>> vectors = torch.eye(4)[[0, 0, 1, 1]]
        >>> embeddings = Embeddings(vectors, torch.zeros(4, dtype=torch.long), sublabels=torch.tensor([5, 5, 6, 7]))
        >>> report = evaluate_embeddings(embeddings, k=[1])
        >>> report.means["recall@1"], report.sub.means["recall@1"], report.sub.undefined
        (1.0, 1.0, 2)
    """
    sides = [queries] if gallery is None else [queries, gallery]
    vectors = [side.vectors.to(device) for side in sides]

    def evaluate(labels: Sequence[Tensor]) -> RetrievalReport:
        if gallery is None:
            return evaluate_retrieval(vectors[0], labels[0].to(device), k=k)
        options: dict[str, Any] = {"gallery": vectors[1], "gallery_labels": labels[1].to(device), "k": k}
        return evaluate_retrieval(vectors[0], labels[0].to(device), **options)

    report = evaluate([side.labels for side in sides])
    finer = [side.sublabels for side in sides if side.sublabels is not None]
    return replace(report, sub=evaluate(finer)) if len(finer) == len(sides) else report

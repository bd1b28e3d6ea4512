"""Model and split to a retrieval report."""

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
    """Embed the test items (and the gallery) and measure retrieval.

    Args:
        model: inputs -> unit vectors.
        test: the queries; they are their own gallery, each left out of its own search, if ``gallery`` is None.
        gallery: what is searched.
        transform: image -> network input.
        k: cut-offs.
        notes: put into the report; the number of skipped images is added.
        workers: see :func:`~polyanchor.runs.embed.embed`.
        on_bad: likewise.
        channels_last: likewise.
        description: what the progress bar calls the queries.
        ranks: processes that share the embedding, all of which call it; the first one searches, and all get the report.
    """
    ranks = ranks or Ranks()
    options: dict[str, Any] = {"workers": workers, "on_bad": on_bad, "channels_last": channels_last, "ranks": ranks}
    queries, skipped = embed(model, test, transform, description=description, **options)
    found: Embeddings | None = None
    if gallery is not None:
        found, more = embed(model, gallery, transform, description="gallery", **options)
        skipped += more
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    report = ranks.run_on_rank0(lambda: evaluate_embeddings(queries, found, k=k, device=device))
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
    """Measure retrieval by the classes, and by the known finer classes where queries (and gallery) have them.

    Args:
        queries: their own gallery, each left out of its own search, if ``gallery`` is None.
        gallery: what is searched.
        k: cut-offs.
        device: where to search.

    Example:
        >>> vectors = torch.eye(4)[[0, 0, 1, 1]]
        >>> found = Embeddings(vectors, torch.zeros(4, dtype=torch.long), sublabels=torch.tensor([5, 5, 6, 7]))
        >>> report = evaluate_embeddings(found, k=[1])
        >>> report.means["recall@1"], report.sub.means["recall@1"], report.sub.undefined
        (1.0, 1.0, 2)
    """
    everything = [queries] if gallery is None else [queries, gallery]

    def judged(*labels: Tensor) -> RetrievalReport:
        sides = [(side.vectors.to(device), found.to(device)) for side, found in zip(everything, labels, strict=True)]
        if len(sides) == 1:
            return evaluate_retrieval(*sides[0], k=k)
        return evaluate_retrieval(*sides[0], gallery=sides[1][0], gallery_labels=sides[1][1], k=k)

    report = judged(*(side.labels for side in everything))
    finer = [side.sublabels for side in everything if side.sublabels is not None]
    return replace(report, sub=judged(*finer)) if len(finer) == len(everything) else report

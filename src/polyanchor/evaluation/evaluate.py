"""Model and split to a retrieval report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from polyanchor.data.items import Items
from polyanchor.data.transforms import Transform
from polyanchor.evaluation.embed import embed
from polyanchor.evaluation.retrieval import evaluate_retrieval
from polyanchor.types import RetrievalReport


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
) -> RetrievalReport:
    """Embed the test items (and the gallery) and measure retrieval.

    Args:
        model: inputs -> unit vectors.
        test: the queries; they are their own gallery, each left out of its own search, if ``gallery`` is None.
        gallery: what is searched.
        transform: image -> network input.
        k: cut-offs.
        notes: put into the report; the number of skipped images is added.
        workers: see :func:`~polyanchor.evaluation.embed.embed`.
        on_bad: likewise.
        channels_last: likewise.
        description: what the progress bar calls the queries.
    """
    options: dict[str, Any] = {"workers": workers, "on_bad": on_bad, "channels_last": channels_last}
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    queries, skipped = embed(model, test, transform, description=description, **options)
    if gallery is None:
        report = evaluate_retrieval(queries.vectors.to(device), queries.labels.to(device), k=k)
    else:
        found, more = embed(model, gallery, transform, description="gallery", **options)
        skipped += more
        report = evaluate_retrieval(
            queries.vectors.to(device),
            queries.labels.to(device),
            gallery=found.vectors.to(device),
            gallery_labels=found.labels.to(device),
            k=k,
        )
    if skipped:
        notes += (left_out(skipped),)
    return replace(report, notes=report.notes + notes)

"""What there is to look at: the vectors of a finished run, and what is known of each item."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from polyanchor import _check
from polyanchor.data.items import Items
from polyanchor.evaluation.embed import embed
from polyanchor.evaluation.evaluate import evaluate_embeddings
from polyanchor.training.device import device_of
from polyanchor.training.reuse import PARTS
from polyanchor.training.setup import make_transforms
from polyanchor.training.trained import open_trained
from polyanchor.types import Embeddings


@dataclass(frozen=True)
class Rows:
    """Items of one part of a run's data, row for row.

    Attributes:
        part: ``"train"``, ``"validation"``, ``"test"`` or ``"gallery"``.
        items: those that could be read.
        embeddings: their vectors.
        ndcg: ``(N,)`` float64, nDCG of each as a query, NaN where undefined; None for a part that does not search.
    """

    part: str
    items: Items
    embeddings: Embeddings
    ndcg: Tensor | None


def open_rows(
    run: Path, *, part: str = "test", settings: tuple[str, ...] = ()
) -> tuple[list[Rows], int, tuple[str, ...]]:
    """Embed a part of a finished run's data, or all of it.

    Args:
        run: its folder.
        part: ``"test"``, ``"gallery"``, ``"train"``, ``"validation"`` or ``"all"`` of them.
        settings: changes to its ``data``, ``images``, ``batches`` and ``run`` keys.

    Returns:
        Its parts; the k of the nDCG, the largest of ``run.k``; the names of images that could not be read.

    Raises:
        FileNotFoundError: no run, or one that is not finished.
        ValueError: there is no such part.
    """
    _check.one_of("part", part, PARTS)
    trained = open_trained(run, settings)
    config, split = trained.config, trained.parts.split
    known = {
        "train": trained.parts.train,
        "validation": trained.parts.validation,
        "test": split.test,
        "gallery": split.gallery,
    }
    embedded = partial(
        embed,
        trained.model.to(device_of(config)),
        transform=make_transforms(config, trained.model.statistics)[1],
        workers=config.data.workers,
        on_bad=config.data.on_bad_image,
        channels_last=config.run.channels_last,
    )
    rows: list[Rows] = []
    skipped: tuple[str, ...] = ()
    k = max(config.run.k)
    for name, items in known.items():
        if items is None or part not in ("all", name):
            continue
        embeddings, bad = embedded(items=items, description=name)
        skipped += bad
        rows.append(Rows(name, items.without(bad), embeddings, None))
    if not rows:
        raise ValueError(f"{split.name} has no {part} part in this run")
    test, gallery = (next((one.embeddings for one in rows if one.part == name), None) for name in ("test", "gallery"))
    if test is not None:
        if gallery is None and split.gallery is not None:  # searched, and not asked for
            gallery, _ = embedded(items=split.gallery, description="gallery")
        report = evaluate_embeddings(test, gallery, k=[k], device=device_of(config))
        rows = [replace(one, ndcg=report.per_query[f"ndcg@{k}"]) if one.part == "test" else one for one in rows]
    return rows, k, skipped

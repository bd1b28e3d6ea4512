"""What there is to look at: the vectors of a finished run, and what is known of each item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor.data.items import Items
from polyanchor.evaluation.embed import embed
from polyanchor.evaluation.evaluate import evaluate_embeddings
from polyanchor.training.device import device_of
from polyanchor.training.reuse import PARTS
from polyanchor.training.setup import make_transforms
from polyanchor.training.trained import Trained, open_trained
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
    split, k = trained.parts.split, max(trained.config.run.k)
    found, skipped = embed_parts(trained, [name for name in PARTS if part in ("all", name)])
    if not found:
        raise InputError(f"{split.name} has no {part} part in this run")
    test, gallery = found.get("test"), found.get("gallery")
    if test is not None:
        if gallery is None and split.gallery is not None:  # searched, and not asked for
            gallery = embed_parts(trained, ["gallery"])[0]["gallery"]
        searched = None if gallery is None else gallery.embeddings
        report = evaluate_embeddings(test.embeddings, searched, k=[k], device=device_of(trained.config))
        found["test"] = replace(test, ndcg=report.per_query[f"ndcg@{k}"])
    return list(found.values()), k, skipped


def embed_parts(trained: Trained, names: Sequence[str]) -> tuple[dict[str, Rows], tuple[str, ...]]:
    """Embed parts of a run's data, without measuring.

    Args:
        trained: the run, opened.
        names: of the parts; those that it does not have are left out.

    Returns:
        Name -> part, in the order of training, validation, test, gallery; the names of images that could not be read.
    """
    config, split = trained.config, trained.parts.split
    known = {
        "train": trained.parts.train,
        "validation": trained.parts.validation,
        "test": split.test,
        "gallery": split.gallery,
    }
    transform = make_transforms(config, trained.model.statistics)[1]
    model = trained.model.to(device_of(config))
    found: dict[str, Rows] = {}
    skipped: tuple[str, ...] = ()
    for name, items in known.items():
        if items is None or name not in names:
            continue
        embeddings, bad = embed(
            model,
            items,
            transform,
            workers=config.data.workers,
            on_bad=config.data.on_bad_image,
            channels_last=config.run.channels_last,
            description=name,
        )
        skipped += bad
        found[name] = Rows(name, items.without(bad), embeddings, None)
    return found, skipped

"""Model and items to embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn
from torch.utils.data import DataLoader

from polyanchor._errors import InputError
from polyanchor._progress import progress
from polyanchor.datasets.items import Items
from polyanchor.datasets.loading import ItemDataset, collate, ignore_sigint
from polyanchor.datasets.transforms import Transform
from polyanchor.distributed.comm import Ranks
from polyanchor.types import Embeddings


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def embed(
    model: nn.Module,
    items: Items,
    transform: Transform | None,
    *,
    batch_size: int = 64,
    workers: int = 0,
    on_bad: Literal["stop", "skip"] = "stop",
    channels_last: bool = True,
    description: str = "embedding",
    ranks: Ranks | None = None,
) -> tuple[Embeddings, tuple[str, ...]]:
    """Embed every item, in order, on the device of the model's parameters; a progress bar goes to stderr.

    Args:
        model: inputs -> ``(B, D)``; used in evaluation mode; each of its modules is left in the mode it came in.
        items: N images or vectors.
        transform: image -> network input; None for vectors.
        batch_size: items per step.
        workers: processes that decode.
        on_bad: what an image that does not decode does, see :class:`~polyanchor.datasets.loading.ItemDataset`.
        channels_last: memory format of the images.
        description: what the progress bar calls it.
        ranks: processes that share the work, all of which call it: each embeds some of the batches, every item once,
            and gets all embeddings; the same as in one process, to the last bit on the same kind of device.

    Returns:
        The embeddings, float32 on the CPU, and the names of the images that were skipped (they have no row).

    Raises:
        BadImageError: an image does not decode and ``on_bad`` is ``"stop"``.
        ValueError: no image could be read at all.
    """
    weight = next(model.parameters(), torch.zeros(()))
    ranks = ranks or Ranks()
    batches = list(torch.arange(len(items)).split(batch_size))
    mine = [batches[number].tolist() for number in ranks.part(len(batches))]
    loader = DataLoader(
        ItemDataset(items, transform, on_bad=on_bad),
        batch_sampler=mine,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=ignore_sigint,
        generator=torch.Generator(),  # the loader draws a seed; not from the generator that training resumes
    )
    vectors, rows, skipped = [], [], []
    with _evaluating(model), progress(description, total=sum(map(len, mine)), unit="items") as advance:
        for batch in loader:
            skipped += batch.skipped
            if len(batch.labels):
                inputs = batch.inputs.to(weight.device, weight.dtype)
                if channels_last and inputs.ndim == 4:
                    inputs = inputs.contiguous(memory_format=torch.channels_last)
                vectors.append(model(inputs).float().cpu())
                rows.append(batch.rows)
            advance(len(batch.labels) + len(batch.skipped))
    skipped = [name for names in ranks.all_gather_object(skipped) for name in names]
    width = max(ranks.all_gather_object(vectors[0].shape[1] if vectors else -1))
    if width < 0:
        raise InputError(f"none of the {len(items)} images could be read, first {skipped[:1]}")
    everything = ranks.rows(torch.cat(vectors) if vectors else torch.empty(0, width))
    kept = ranks.rows(torch.cat(rows) if rows else torch.empty(0, dtype=torch.int64))
    names = tuple(map(items.name, kept.tolist()))
    sublabels = None if items.sublabels is None else items.sublabels[kept]
    found = Embeddings(everything, items.labels[kept], names, dict(items.class_names), sublabels)
    return found, tuple(skipped)

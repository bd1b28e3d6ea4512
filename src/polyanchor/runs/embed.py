"""Embed items with a model."""

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
        model: inputs -> ``(B, D)``; used in evaluation mode, and each of its modules is put back into its own mode.
        items: N images or vectors.
        transform: image -> network input; None for vectors.
        batch_size: items per step.
        workers: processes that decode.
        on_bad: ``"stop"`` or ``"skip"`` at an image that does not decode, see
            :class:`~polyanchor.datasets.loading.ItemDataset`.
        channels_last: memory format of the images.
        description: of the progress bar.
        ranks: processes that share the work; all call this. Each embeds a part of the batches and gets all embeddings,
            bit-identical to those of one process on the same type of device.

    Returns:
        The embeddings, float32 on the CPU, and the names of the skipped images, which have no row.

    Raises:
        BadImageError: an image does not decode and ``on_bad`` is ``"stop"``.
        ValueError: no image could be read at all.
    """
    weight = next(model.parameters(), torch.zeros(()))
    ranks = ranks or Ranks()
    batches = list(torch.arange(len(items)).split(batch_size))
    own = [batches[number].tolist() for number in ranks.part(len(batches))]
    loader = DataLoader(
        ItemDataset(items, transform, on_bad=on_bad),
        batch_sampler=own,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=ignore_sigint,
        generator=torch.Generator(),  # the loader draws a seed, but not from the generator that a resumed run restores
    )
    vectors, rows, skipped = [], [], []
    with _evaluating(model), progress(description, total=sum(map(len, own)), unit="items") as advance:
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
    return Embeddings(everything, items.labels[kept], names, dict(items.class_names), sublabels), tuple(skipped)

"""Configuration to the things that a run works with: split, transforms, batches, model, loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from polyanchor._errors import InputError
from polyanchor._optional import load
from polyanchor.config.schema import Config, Data, MultiProxyAnchor
from polyanchor.datasets.items import Items, Split
from polyanchor.datasets.loading import ItemDataset, collate, ignore_sigint, ignore_sigint_and_nice
from polyanchor.datasets.samplers import ClassBalancedBatches, EpochBatches, ShuffledBatches
from polyanchor.datasets.sources import open_source
from polyanchor.datasets.splits import hold_out_classes
from polyanchor.datasets.transforms import Transform, test_transform, train_transform
from polyanchor.distributed.comm import Ranks
from polyanchor.distributed.sharded_loss import ShardedMultiProxyAnchorLoss
from polyanchor.losses.multi_proxy_anchor import MultiProxyAnchorLoss
from polyanchor.losses.pml import pml_loss
from polyanchor.models.embedding import EmbeddingModel, InputStatistics, create_model


def device_of(config: Config) -> torch.device:
    """Where this configuration computes.

    Raises:
        ValueError: ``run.accelerator`` names something that this machine does not have, or ``run.devices`` too many.
    """
    asked = config.run.accelerator
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    known = ["auto", "cpu"] + ([] if found is None else ["gpu", found.type])
    if asked not in known:
        raise InputError(f"run.accelerator must be {' or '.join(known)} on this machine, got {asked!r}")
    if asked == "cpu" or found is None:
        return torch.device("cpu")
    if config.run.devices > torch.accelerator.device_count():
        raise InputError(
            f"run.devices must be at most {torch.accelerator.device_count()}, the {found.type} devices here, "
            f"got {config.run.devices}"
        )
    return found


def usable_here(config: Config, settings: Sequence[str] = ()) -> Config:
    """The configuration of a finished run for a machine that is not the one it was trained on.

    One process on one device: the run's own kind of device where there is one, else what there is. An accelerator that
    ``settings`` name stays, and :func:`device_of` refuses it if it is not there.
    """
    change: dict[str, object] = {"devices": 1, "nodes": 1}
    kinds = {"auto", "cpu"}
    if torch.accelerator.is_available():
        found = torch.accelerator.current_accelerator()
        kinds |= {"gpu", found.type if found is not None else "gpu"}
    if config.run.accelerator not in kinds and not any(one.startswith("run.accelerator") for one in settings):
        change["accelerator"] = "auto"
    return config.model_copy(update={"run": config.run.model_copy(update=change)})


@dataclass(frozen=True)
class Parts:
    """A split whose training classes are divided into those that train and those that validate."""

    split: Split
    train: Items
    validation: Items | None


def open_parts(config: Config) -> Parts:
    """Open the data source and hold out validation classes (of the training classes only)."""
    data = config.data
    split = open_source(
        data.source,
        root=data.root,
        allow_partial=data.allow_partial,
        labels=data.labels,
        train_share=data.train_share,
        test=data.test,
        drop_shared=data.drop_shared,
        max_pixels=data.max_pixels,
    )
    if len(split.train.classes) < 2:
        raise InputError(
            f"training needs at least 2 classes to tell apart, got {len(split.train.classes)} training class(es) in "
            f"{split.name}; a source without a split of its own gives half of its classes to the test"
        )
    if split.validation is not None:
        if data.val_share != Data().val_share:
            raise InputError(
                f"{split.name} has a validation part of its own, so data.val_share = {data.val_share} cannot apply; "
                "leave it out"
            )
        return Parts(split, split.train, split.validation)
    if data.val_share == 0:
        return Parts(split, split.train, None)
    train, validation = hold_out_classes(split.train, share=data.val_share, seed=config.run.seed)
    return Parts(split, train, validation)


def make_transforms(config: Config, statistics: InputStatistics | None) -> tuple[Transform | None, Transform | None]:
    """Training and test transform; None and None for vectors."""
    if statistics is None:
        return None, None
    images = config.images
    common: dict[str, Any] = {"size": images.size, "resize": images.resize, "aspect": images.aspect}
    common |= {"mean": statistics.mean, "std": statistics.std}
    return (
        train_transform(kind=images.train, scale=images.scale, flip=images.flip, **common),
        test_transform(**common),
    )


def make_batches(config: Config, labels: Tensor, ranks: Ranks | None = None) -> EpochBatches:
    """The batch sampler of a process; asks for no more classes, or items, than there are."""
    ranks = ranks or Ranks()
    batches = config.batches
    options: dict[str, Any] = {"seed": config.run.seed, "rank": ranks.rank, "ranks": ranks.size}
    classes = min(batches.classes_per_batch, len(labels.unique()))
    if batches.sampler == "balanced":
        return ClassBalancedBatches(labels, classes=classes, images=batches.samples_per_class, **options)
    return ShuffledBatches(
        labels, size=min(batches.classes_per_batch * batches.samples_per_class, len(labels)), **options
    )


def make_loader(config: Config, items: Items, transform: Transform | None, batches: EpochBatches) -> DataLoader[Any]:
    """Batches of decoded, augmented training items."""
    dataset = ItemDataset(items, transform, seed=config.run.seed, on_bad=config.data.on_bad_image)
    device = device_of(config).type
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=config.data.workers,
        collate_fn=collate,
        worker_init_fn=ignore_sigint_and_nice if device == "cpu" else ignore_sigint,
        pin_memory=device == "cuda",
        generator=torch.Generator(),  # the loader draws a seed; not from the generator that training resumes
    )


def make_model(config: Config, items: Items) -> EmbeddingModel:
    """The network for these items; images need a backbone and vectors must not have one."""
    model = config.model
    if isinstance(items.inputs, Tensor) != (model.backbone == "none"):
        kind = "vectors" if isinstance(items.inputs, Tensor) else "images"
        raise InputError(
            f"{config.data.source} holds {kind}, got model.backbone = {model.backbone!r}; "
            "set it to 'none' for vectors and to a timm model for images"
        )
    made = create_model(
        model.backbone,
        embedding_dim=model.embedding_dim,
        pooling=model.pooling,
        weights=model.weights,
        weights_key=model.weights_key,
        freeze_bn=model.freeze_bn,
        features=items.inputs.shape[1] if isinstance(items.inputs, Tensor) else 0,
        image_size=config.images.size,
    )
    if config.model.sync_bn:
        if device_of(config).type == "cpu":
            raise InputError("model.sync_bn needs an accelerator, got a CPU; model.freeze_bn=true works on both")
        made = load("timm.layers", "train").convert_sync_batchnorm(made)
    return made.to(memory_format=torch.channels_last) if config.run.channels_last else made


def require_fitting(model: EmbeddingModel, source: str, *parts: Items | None, of: str) -> None:
    """Refuse items that a trained model does not take: of the other kind, or vectors of another width.

    Args:
        model: what they would go into.
        source: of the items, for the message.
        parts: the items; None is none.
        of: the run's folder, or whatever the model comes from.

    Raises:
        InputError: they do not fit.

    Example:
        >>> model = EmbeddingModel(None, features=6, embedding_dim=2)
        >>> require_fitting(model, "features:v.npz", Items(torch.ones(1, 5), torch.zeros(1).long()), of="runs/a")
        Traceback (most recent call last):
        ...
        polyanchor._errors.InputError: runs/a takes vectors of 6 columns, got features:v.npz, which holds vectors of ...
    """
    takes = "images" if model.backbone is not None else f"vectors of {model.head.in_features} columns"
    for items in parts:
        if items is None:
            continue
        inputs = items.inputs
        held = f"vectors of {inputs.shape[1]} columns" if isinstance(inputs, Tensor) else "images"
        if held.partition(" ")[0] != takes.partition(" ")[0] or (model.backbone is None and held != takes):
            raise InputError(f"{of} takes {takes}, got {source}, which holds {held}; give it what it was trained on")


def make_loss(config: Config, num_classes: int, ranks: Ranks | None = None) -> nn.Module:
    """The loss with its proxies: those of all classes, unless ``ranks`` are to share them."""
    loss, dim = config.loss, config.model.embedding_dim
    options = loss.model_dump(exclude={"name", "proxy_sharding", "negative_sample_rate"})
    if isinstance(loss, MultiProxyAnchor):
        if config.sharded and ranks is not None:
            share = loss.negative_sample_rate
            return ShardedMultiProxyAnchorLoss(num_classes, dim, mesh=ranks.mesh, negative_sample_rate=share, **options)
        return MultiProxyAnchorLoss(num_classes, dim, **options)
    return pml_loss(loss.name, num_classes, dim, **options)

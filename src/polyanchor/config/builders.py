"""Objects from a configuration: split, transforms, batches, model, loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from polyanchor._errors import InputError
from polyanchor._optional import load
from polyanchor.config.loading import SHORTHANDS
from polyanchor.config.schema import Config, Data, MultiProxyAnchor
from polyanchor.datasets.items import Items, Split
from polyanchor.datasets.loading import ItemDataset, collate, ignore_sigint, ignore_sigint_and_nice
from polyanchor.datasets.samplers import ClassBalancedBatches, EpochBatches, ShuffledBatches
from polyanchor.datasets.sources import open_source
from polyanchor.datasets.splits import hold_out_classes
from polyanchor.datasets.transforms import Transform, test_transform, train_transform
from polyanchor.distributed.comm import Ranks
from polyanchor.losses.base import EmbeddingLoss
from polyanchor.losses.multi_proxy_anchor import MultiProxyAnchorLoss
from polyanchor.losses.pml import pml_loss
from polyanchor.models.embedding import EmbeddingModel, InputStatistics, create_model


def device_of(config: Config) -> torch.device:
    """The device of this configuration on this machine.

    Raises:
        ValueError: this machine lacks the ``run.accelerator``, or has fewer than ``run.devices``.
    """
    name, accelerator = config.run.accelerator, _accelerator()
    usable = ["auto", "cpu"] + ([] if accelerator is None else ["gpu", accelerator.type])
    if name not in usable:
        raise InputError(f"run.accelerator must be {' or '.join(usable)} on this machine, got {name!r}")
    if name == "cpu" or accelerator is None:
        return torch.device("cpu")
    if config.run.devices > torch.accelerator.device_count():
        raise InputError(
            f"run.devices must be at most {torch.accelerator.device_count()}, the {accelerator.type} devices here, "
            f"got {config.run.devices}"
        )
    return accelerator


def _accelerator() -> torch.device | None:
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None


def usable_here(config: Config, settings: Sequence[str] = ()) -> Config:
    """The configuration of a finished run, for a machine that may not be the one it was trained on.

    One process on one device: of the run's own type where there is one, else any. An accelerator that ``settings`` name
    is kept, and :func:`device_of` refuses it if it is not there.
    """
    change: dict[str, object] = {"devices": 1, "nodes": 1}
    accelerator = _accelerator()
    usable = {"auto", "cpu"} | (set() if accelerator is None else {"gpu", accelerator.type})
    asked = any(setting.startswith(("run.accelerator=", f"{SHORTHANDS['device']}=")) for setting in settings)
    if config.run.accelerator not in usable and not asked:
        change["accelerator"] = "auto"
    return config.model_copy(update={"run": config.run.model_copy(update=change)})


@dataclass(frozen=True)
class Parts:
    """A split whose training classes are divided into training and validation classes."""

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


def with_recipe(config: Config) -> Config:
    """The configuration with the keys that are ``auto`` decided; a run records what they became.

    A pretrained backbone keeps what it knows: no head while training, features less their training mean, frozen batch
    norms, soft sharpness. Vectors train a linear head that starts at their principal components. A random network
    trains as published.

    Example:
        >>> with_recipe(Config()).model.neck, with_recipe(Config(model={"weights": ""})).model.head
        ('center', 'linear')
    """
    model, loss, optim = config.model, config.loss, config.optim
    vectors = model.backbone == "none"
    weights = ("" if vectors else "hub") if model.weights == "auto" else model.weights
    pretrained = bool(weights) and not vectors
    head = ("none" if pretrained else "pca" if vectors else "linear") if model.head == "auto" else model.head
    decided = {
        "weights": weights,
        "head": head,
        "neck": ("center" if pretrained else "none") if model.neck == "auto" else model.neck,
        "freeze_bn": (pretrained and not model.sync_bn) if model.freeze_bn == "auto" else model.freeze_bn,
    }
    start = ("items" if pretrained or vectors else "random") if optim.proxy_start == "auto" else optim.proxy_start
    changes: dict[str, Any] = {
        "model": model.model_copy(update=decided),
        "optim": optim.model_copy(update={"proxy_start": start}),
    }
    if isinstance(loss, MultiProxyAnchor) and loss.alpha == "auto":
        changes["loss"] = loss.model_copy(update={"alpha": 16.0 if head == "none" else 32.0})
    return config.model_copy(update=changes)


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


def embed_options(config: Config, statistics: InputStatistics | None) -> dict[str, Any]:
    """The arguments of :func:`polyanchor.runs.embed.embed` that the configuration sets."""
    return {
        "transform": make_transforms(config, statistics)[1],
        "workers": config.data.workers,
        "on_bad": config.data.on_bad_image,
        "channels_last": config.run.channels_last,
    }


def make_batches(config: Config, labels: Tensor, ranks: Ranks | None = None) -> EpochBatches:
    """The batch sampler of a process, capped at the available classes and items."""
    ranks = ranks or Ranks()
    batches = config.batches
    options: dict[str, Any] = {"seed": config.run.seed, "rank": ranks.rank, "ranks": ranks.size}
    classes = min(batches.classes_per_batch, len(labels.unique()))
    if batches.sampler == "balanced":
        return ClassBalancedBatches(labels, classes=classes, images=batches.samples_per_class, **options)
    size = min(batches.classes_per_batch * batches.samples_per_class, len(labels))
    return ShuffledBatches(labels, size=size, **options)


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
        generator=torch.Generator(),  # the loader draws a seed, but not from the generator that a resumed run restores
    )


def make_model(config: Config, items: Items) -> EmbeddingModel:
    """The network for these items: images need a backbone, vectors must have none."""
    model = with_recipe(config).model
    if isinstance(items.inputs, Tensor) != (model.backbone == "none"):
        kind, other = ("vectors", "images") if isinstance(items.inputs, Tensor) else ("images", "vectors")
        mend = "set it to 'none'" if kind == "vectors" else "give a file of vectors as the source, or name a timm model"
        raise InputError(
            f"{config.data.source} holds {kind}, and model.backbone = {model.backbone!r} takes {other}; {mend}"
        )
    if model.backbone == "none" and model.head == "none":
        raise InputError("vectors without a head leave nothing to train; set model.head to 'pca' or 'linear'")
    network = create_model(
        model.backbone,
        embedding_dim=model.embedding_dim,
        pooling=model.pooling,
        weights=model.weights,
        weights_key=model.weights_key,
        freeze_bn=model.freeze_bn is True,
        neck="none" if model.neck == "auto" else model.neck,
        head="linear" if model.head == "auto" else model.head,
        features=items.inputs.shape[1] if isinstance(items.inputs, Tensor) else 0,
        image_size=config.images.size,
    )
    if model.sync_bn:
        if device_of(config).type == "cpu":
            raise InputError("model.sync_bn needs an accelerator, got a CPU; model.freeze_bn=true works on both")
        network = load("timm.layers", "train").convert_sync_batchnorm(network)
    return network.to(memory_format=torch.channels_last) if config.run.channels_last else network


def make_loss(config: Config, num_classes: int, ranks: Ranks | None = None, *, dim: int | None = None) -> EmbeddingLoss:
    """The loss with the proxies of all classes, or of this rank's share if ``ranks`` are given and share them.

    ``dim`` is the number of columns that the loss sees, :attr:`EmbeddingModel.train_dim`; by default the embedding's.
    """
    config = with_recipe(config)
    loss, dim = config.loss, config.model.embedding_dim if dim is None else dim
    options = loss.model_dump(exclude={"name", "proxy_sharding", "negative_sample_rate"})
    if not isinstance(loss, MultiProxyAnchor):
        return pml_loss(loss.name, num_classes, dim, **options)
    if not config.sharded or ranks is None:
        return MultiProxyAnchorLoss(num_classes, dim, **options)
    from polyanchor.distributed.sharded_loss import ShardedMultiProxyAnchorLoss  # imports torch.distributed.tensor

    rate = loss.negative_sample_rate
    return ShardedMultiProxyAnchorLoss(num_classes, dim, mesh=ranks.mesh, negative_sample_rate=rate, **options)


def require_fitting(model: EmbeddingModel, source: str, *parts: Items | None, of: str) -> None:
    """Refuse items that a trained model does not take: images for vectors, or vectors of another width.

    Args:
        model: the trained model.
        source: of the items, for the message.
        parts: the items; None is ignored.
        of: the origin of the model, for the message.

    Raises:
        InputError: they do not fit.

    Example:
        >>> model = EmbeddingModel(None, features=6, embedding_dim=2)
        >>> require_fitting(model, "features:v.npz", Items(torch.ones(1, 5), torch.zeros(1).long()), of="runs/a")
        Traceback (most recent call last):
        ...
        polyanchor._errors.InputError: runs/a takes vectors of 6 columns, got features:v.npz, which holds vectors of ...
    """
    takes = "images" if model.backbone is not None else f"vectors of {model.features} columns"
    for items in parts:
        if items is None:
            continue
        inputs = items.inputs
        held = f"vectors of {inputs.shape[1]} columns" if isinstance(inputs, Tensor) else "images"
        if held.partition(" ")[0] != takes.partition(" ")[0] or (model.backbone is None and held != takes):
            raise InputError(f"{of} takes {takes}, got {source}, which holds {held}; give it what it was trained on")

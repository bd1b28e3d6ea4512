"""Finished runs: open one, evaluate it, write its vectors to a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from polyanchor import _check
from polyanchor._defaults import own_defaults
from polyanchor._errors import InputError
from polyanchor._io import save_tensors
from polyanchor.config.builders import (
    Parts,
    device_of,
    embed_options,
    make_loss,
    make_model,
    open_parts,
    require_fitting,
    usable_here,
    with_recipe,
)
from polyanchor.config.loading import load_config
from polyanchor.config.schema import Config
from polyanchor.datasets.formats import vectors
from polyanchor.datasets.items import Items
from polyanchor.datasets.sources import open_items
from polyanchor.functional import unit_rows
from polyanchor.losses.base import EmbeddingLoss
from polyanchor.models.embedding import EmbeddingModel, require_size
from polyanchor.runs.embed import embed
from polyanchor.runs.evaluate import evaluate_embeddings, evaluate_items
from polyanchor.runs.folder import RunFolder
from polyanchor.types import Announce, Embeddings, RetrievalReport

PARTS = ("test", "gallery", "train", "validation", "all")


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        config: of the run, with the changed settings.
        model: of the chosen epoch, in evaluation mode, on the CPU.
        loss: with its proxies.
        classes: ``(C,)`` int64 ascending, the data source's ids of the training classes; position is class number.
        parts: the data, divided as in the training.
    """

    config: Config
    model: EmbeddingModel
    loss: EmbeddingLoss
    classes: Tensor
    parts: Parts

    @property
    def proxies(self) -> Tensor | None:
        """``(C, K, D)`` proxies of length 1 in the space of the model's embeddings; None without proxies."""
        proxies = self.loss.full_proxies()
        if proxies is None:
            return None
        return self.model.reduced(unit_rows(proxies.flatten(0, 1))).view(*proxies.shape[:2], -1)


@own_defaults()
def open_trained(run: Path, settings: tuple[str, ...] = (), *, reduced: bool = False) -> Trained:
    """Open a finished run.

    Args:
        run: its folder.
        settings: changes to its ``data``, ``images``, ``batches`` and ``run`` keys.
        reduced: whether the model gives its embeddings, as :func:`evaluate_run` measures them, rather than the vectors
            that its loss has seen, which may have more columns.

    Raises:
        FileNotFoundError: no run, or one that is not finished.
        ValueError: a setting changes what was trained.
    """
    config, model, state = _open(run, settings, ("data", "images", "batches", "run"))
    if not reduced:
        model.reduction = None
    folder = RunFolder(run)
    classes = state.get("classes", torch.empty(0))
    if classes.ndim != 1 or classes.dtype != torch.int64 or not len(classes):
        raise InputError(f"{folder.model} is not what a run writes: it holds no class ids under the name classes")
    loss = make_loss(config, len(classes), dim=model.train_dim)
    try:
        loss.load_state_dict({name[5:]: tensor for name, tensor in state.items() if name.startswith("loss.")})
    except RuntimeError as error:
        raise InputError(f"{folder.model} does not fit the run's {folder.config.name}: {error}") from error
    parts = open_parts(config)
    require_fitting(model, parts.split.name, *items_by_part(parts).values(), of=str(run))
    return Trained(config, model, loss, classes, parts)


@own_defaults()
def evaluate_run(
    run: Path, *, data: str = "", split: str = "", settings: tuple[str, ...] = (), k: Sequence[int] = ()
) -> RetrievalReport:
    """Evaluate the model of a finished run.

    Args:
        run: its folder.
        data: another data source, all of whose items are searched among themselves; empty: the run's own.
        split: ``"test"`` (also if empty), ``"train"`` or ``"validation"`` of the run's own data; not with ``data``.
        settings: changes to its ``data``, ``images`` and ``run`` keys.
        k: cut-offs; those of the run if empty.
    """
    split = own_split(split, data)
    config, model, _ = _open(run, settings)
    gallery: Items | None = None
    notes: tuple[str, ...]
    if data:
        items, notes = all_of(data, config), (f"all items of {data}",)
        require_fitting(model, data, items, of=str(run))
    else:
        _check.one_of("split", split, ("test", "train", "validation"))
        parts = open_parts(config)
        items, notes = part_of(parts, split), parts.split.notes
        require_fitting(model, parts.split.name, items, parts.split.gallery, of=str(run))
        if split == "test":
            gallery = parts.split.gallery
        else:
            notes += (f"these are the {split} classes, not the test classes",)
    options = embed_options(config, model.statistics)
    return evaluate_items(model.to(device_of(config)), items, gallery, k=k or config.run.k, notes=notes, **options)


def own_split(split: str, data: str) -> str:
    """``"test"`` if empty; refused beside ``data``, which has no splits of the run."""
    if split and data:
        raise InputError(f"--split takes a part of the run's own data, and all of {data} is used; leave --split out")
    return split or "test"


@own_defaults()
def evaluate_file(file: Path, *, split: str = "", k: Sequence[int] = ()) -> RetrievalReport:
    """Evaluate the vectors of a file: all rows, or one split of a file that has splits.

    Args:
        file: of vectors.
        split: ``"test"`` (also if empty; searched in the gallery, if there is one) or ``"train"``.
        k: cut-offs.

    Raises:
        InputError: the file has no such split.
    """
    listing, k = vectors.read(file), tuple(k) or (1, 2, 4, 8)
    items = listing.items
    if split:
        present = [] if listing.parts is None else listing.parts.unique().tolist()
        names = [name for number, name in ((1, "test"), (0, "train")) if number in present]
        if split not in names:
            has = f"its parts are {' and '.join(names)}" if names else "it has no parts; leave --split out"
            raise InputError(f"{file}: no {split} split can be measured: {has}")
    if listing.parts is not None and split == "train":
        train = items.subset(listing.parts == 0)
        note = f"the train part of the file, {len(train)} of {len(items)} rows"
        return replace(evaluate_embeddings(_as_embeddings(train), k=k), notes=(note,))
    if listing.parts is None:
        return evaluate_embeddings(_as_embeddings(items), k=k)
    test, gallery = (items.subset(listing.parts == part) for part in (1, 2))
    searched = _as_embeddings(gallery) if len(gallery) else None
    report = evaluate_embeddings(_as_embeddings(test), searched, k=k)
    return replace(report, notes=(f"the test part of the file, {len(test)} of {len(items)} rows",))


def _as_embeddings(items: Items) -> Embeddings:
    assert isinstance(items.inputs, torch.Tensor)  # what a file of vectors holds
    return Embeddings(items.inputs, items.labels, items.names, items.class_names, items.sublabels)


@own_defaults()
def embed_run(
    run: Path | None,
    out: Path,
    *,
    data: str = "",
    split: str = "",
    settings: tuple[str, ...] = (),
    features: bool = False,
    announce: Announce = lambda line: None,
) -> Embeddings:
    """Write vectors of a finished run's model, or of a backbone as it comes, to a ``.safetensors`` file.

    Args:
        run: its folder; or a configuration file, or None for the default configuration: nothing is trained then, and
            ``features`` of the backbone with its given weights are all there is to write.
        out: file to write, replaced in one step.
        data: another data source, all of whose items are embedded; empty: the run's own.
        split: ``"test"`` (also if empty), ``"gallery"``, ``"train"``, ``"validation"``, or ``"all"``: train, test and
            gallery in one file that remembers which is which; not beside ``data``.
        settings: changes to its ``data``, ``images`` and ``run`` keys; without a run, to any key.
        features: what the backbone gives, before the head; such a file trains heads quickly.
        announce: receives a line if the weights are random, or were chosen among several.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"--out must end in .safetensors, or in .parquet for a table with thumbnails, got {out}")
    split = own_split(split, data)
    if run is not None and run.is_dir():
        config, model, _ = _open(run, settings)
    else:
        config, model = _untrained(run, settings, features=features)
        if not config.model.weights:
            announce("the weights of the backbone are random; --weights hub, or a file, for pretrained ones")
        for line in model.notes:
            announce(line)
    network: nn.Module = model.to(device_of(config))
    if features:
        if model.backbone is None:
            raise InputError(f"{run or 'the configuration'} has no backbone: its features are its input")
        network = model.backbone
    pieces: list[Embeddings] = []
    numbers: list[int] = []
    for number, items in _selected(config, data, split):
        require_fitting(model, data or config.data.source, items, of=str(run or "the model"))
        piece, _ = embed(network, items, **embed_options(config, model.statistics))
        pieces.append(piece)
        numbers += [number] * len(piece.labels)
    whole = Embeddings(
        torch.cat([piece.vectors for piece in pieces]),
        torch.cat([piece.labels for piece in pieces]),
        tuple(name for piece in pieces for name in piece.names),
        {number: name for piece in pieces for number, name in piece.class_names.items()},
        torch.cat([piece.sublabels for piece in pieces if piece.sublabels is not None])
        if all(piece.sublabels is not None for piece in pieces)
        else None,
    )
    _write(whole, out, torch.tensor(numbers) if split == "all" and not data else None)
    return whole


def _selected(config: Config, data: str, split: str) -> list[tuple[int, Items]]:
    """The items to embed, each with the number of its split in the file."""
    if data:
        return [(1, all_of(data, config))]
    _check.one_of("split", split, PARTS)
    parts = open_parts(config)
    if split != "all":
        return [(1, part_of(parts, split))]
    numbered = enumerate((parts.split.train, parts.split.test, parts.split.gallery, parts.split.validation))
    return [(number, items) for number, items in numbered if items is not None]


def all_of(data: str, config: Config) -> Items:
    """All items of a data source, opened as the configuration opens its own."""
    return open_items(
        data,
        root=config.data.root,
        allow_partial=config.data.allow_partial,
        max_pixels=config.data.max_pixels,
    )


def _write(embeddings: Embeddings, out: Path, parts: torch.Tensor | None) -> None:
    names = {str(number): name for number, name in embeddings.class_names.items()}
    metadata = json.dumps({"names": list(embeddings.names), "class_names": names}, ensure_ascii=False)
    tensors = {"vectors": embeddings.vectors, "labels": embeddings.labels}
    if parts is not None:
        tensors["split"] = parts
    if embeddings.sublabels is not None:
        tensors["sublabels"] = embeddings.sublabels
    out.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(tensors, out, {"polyanchor": metadata})


def _open(
    run: Path, settings: tuple[str, ...], sections: tuple[str, ...] = ("data", "images", "run")
) -> tuple[Config, EmbeddingModel, dict[str, Tensor]]:
    """Configuration, model and tensors of a finished run, on the CPU; ``settings`` may change ``sections`` alone."""
    for setting in settings:
        if setting.partition(".")[0] not in sections:
            names = f"{', '.join(sections[:-1])} and {sections[-1]}"
            raise InputError(f"only {names} keys of a finished run can change, got {setting.partition('=')[0]}")
    folder = RunFolder(run)
    config = usable_here(folder.read_config(settings), settings)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    model, state = folder.read_model()
    require_size(model, config.model.backbone, config.images.size)
    return config, model, state


def _untrained(file: Path | None, settings: tuple[str, ...], *, features: bool) -> tuple[Config, EmbeddingModel]:
    """A backbone with its initial weights."""
    config = with_recipe(load_config(file, settings))
    if not features:
        raise InputError("nothing is trained without a run, so the head is random: give a run's folder, or --features")
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    torch.manual_seed(config.run.seed)
    return config, make_model(config, open_parts(config).train)


def part_of(parts: Parts, name: str) -> Items:
    """The items of one of the :data:`PARTS` but ``"all"``; a run may lack some of them."""
    items = items_by_part(parts)[name]
    if items is None:
        raise InputError(f"{parts.split.name} has no {name} part in this run")
    return items


def items_by_part(parts: Parts) -> dict[str, Items | None]:
    """Name of a part -> its items, None for one that the run lacks."""
    split = parts.split
    return {"train": parts.train, "validation": parts.validation, "test": split.test, "gallery": split.gallery}

"""What a run starts from, measured and fitted to training items; and which weights from there to the end it keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyanchor.config.builders import Parts, device_of
from polyanchor.config.schema import Config
from polyanchor.datasets.items import Items
from polyanchor.distributed.comm import Ranks
from polyanchor.losses.base import EmbeddingLoss
from polyanchor.losses.proxies import proxies_of
from polyanchor.models.embedding import EmbeddingModel
from polyanchor.models.head import fit_neck, pca
from polyanchor.runs.before import FORMS, FeatureForms, Features, evaluate_before, fit_forms, sample_rows
from polyanchor.runs.embed import embed
from polyanchor.runs.folder import RunFolder, as_json, read_before, write_json
from polyanchor.training.module import Learner
from polyanchor.types import Announce

_CHUNK = 2**16  # items that are embedded at a time for the start of the proxies
_SPREAD = 0.3  # length of the noise by which several proxies that start at one item of length 1 differ


@dataclass(frozen=True)
class Start:
    """The state before the first step.

    Attributes:
        weights: of the model, on the CPU, with the principal components in the place of a random head.
        before: form of the features -> its report on the test classes, as JSON; empty if it was not measured.
        validation: form -> its ``run.monitor`` on the validation classes.
    """

    weights: dict[str, Tensor]
    before: dict[str, Any]
    validation: dict[str, float | None]


def prepare_start(
    config: Config,
    folder: RunFolder,
    learner: Learner,
    parts: Parts,
    *,
    options: Mapping[str, Any],
    ranks: Ranks,
    resumed: bool,
    announce: Announce,
) -> Start:
    """Fit neck, head and proxies to training items, and measure the features before training.

    Args:
        config: of the run.
        folder: of the run.
        learner: model and loss, changed in place.
        parts: the data.
        options: of :func:`~polyanchor.runs.embed.embed`.
        ranks: processes that train together; all call this.
        resumed: a checkpoint holds the present model and proxies, and the features were measured.
        announce: receives lines about the features.
    """
    model = learner.model.to(device_of(config))
    options = {**options, "ranks": ranks}
    rows = sample_rows(len(parts.train), seed=config.run.seed)
    sample, _ = embed(Features(model), parts.train.subset(rows), description="features", **options)
    forms, components = _fit(model, sample.vectors, config.model.embedding_dim)
    weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    if components is not None:
        weights |= {f"head.{name}": tensor for name, tensor in components.items()}
        if config.model.head == "pca":
            model.load_state_dict(weights)
    if config.optim.proxy_start == "items" and not resumed:
        start_proxies(learner.loss, model, parts.train, seed=config.run.seed, options=options)
    before = _before(config, folder, model, forms, parts, options, ranks, resumed=resumed)
    validation = before.get("validation", {})
    if validation:
        values = ", ".join(f"{FORMS[form]} {value:.4f}" for form, value in validation.items() if value is not None)
        announce(f"before    {config.run.monitor} on the validation classes: {values}")
    learner.cpu()
    return Start(weights, before.get("test", {}), validation)


def _fit(model: EmbeddingModel, features: Tensor, dim: int) -> tuple[FeatureForms, dict[str, Tensor] | None]:
    """Fit the neck in place; the forms of the features, and the principal components for a head."""
    device = next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
    fit_neck(model.neck, features.to(device))
    forms = fit_forms(features, dim)
    if model.head is None:
        return forms, None
    with torch.no_grad():
        model.neck.eval()
        dtype = model.head.weight.dtype
        components = pca(model.neck(features.to(device, dtype)), min(dim, model.features))
    state = {name: tensor.to(dtype) for name, tensor in components.state_dict().items()}
    if dim > model.features:  # more columns than there are components: the rest stay 0
        state["weight"] = torch.cat([state["weight"], state["weight"].new_zeros(dim - model.features, model.features)])
        state["bias"] = torch.cat([state["bias"], state["bias"].new_zeros(dim - model.features)])
    return forms, state


def start_proxies(
    loss: EmbeddingLoss, model: EmbeddingModel, items: Items, *, seed: int, options: Mapping[str, Any]
) -> None:
    """Turn each proxy to the embedding of an item of its class; its length stays.

    The items of a class are drawn by ``seed``, each for one proxy. Where a class has fewer items than proxies, the
    further ones start beside these, as equal proxies would stay equal. A loss without proxies is left alone.

    Args:
        loss: one proxy at least for each class of ``items``, in order of their ids.
        model: inputs -> vectors as the loss sees them.
        items: training items.
        seed: 0 or more.
        options: of :func:`~polyanchor.runs.embed.embed`.
    """
    proxies = proxies_of(loss)
    if proxies is None:
        return
    centres, generator = proxies.shape[1], torch.Generator().manual_seed(seed)
    order = torch.randperm(len(items), generator=generator)
    order = order[items.labels[order].argsort(stable=True)]  # by class, at random within it
    labels = items.labels[order]
    classes, counts = labels.unique_consecutive(return_counts=True)
    firsts = counts.cumsum(0) - counts
    place = torch.arange(len(order)) - firsts.repeat_interleave(counts)
    order, labels = order[place < centres], labels[place < centres]
    step = max(1, _CHUNK // centres)  # classes at a time
    for first in range(0, len(classes), step):
        those = classes[first : first + step]
        chosen = order[(labels >= those[0]) & (labels <= those[-1])]
        embedded, _ = embed(model, items.subset(chosen), description="proxies", **options)
        directions = torch.zeros(len(those), centres, embedded.vectors.shape[1])
        found, counts = embedded.labels.unique_consecutive(return_counts=True)  # images may have been skipped
        numbers = torch.searchsorted(those, found).tolist()
        for number, vectors in zip(numbers, embedded.vectors.split(counts.tolist()), strict=True):
            directions[number] = vectors[torch.arange(centres) % len(vectors)]
            if len(vectors) < centres:
                noise = torch.randn(centres - len(vectors), vectors.shape[1], generator=generator)
                directions[number, len(vectors) :] += noise * (_SPREAD / vectors.shape[1] ** 0.5)
        loss.point_proxies(first, directions)


def _before(
    config: Config,
    folder: RunFolder,
    model: EmbeddingModel,
    forms: FeatureForms,
    parts: Parts,
    options: Mapping[str, Any],
    ranks: Ranks,
    *,
    resumed: bool,
) -> dict[str, Any]:
    """Measure the features on test and validation classes; what a resumed run measured is read."""
    if not config.run.before:
        return {}
    if ranks.run_on_rank0(lambda: resumed and folder.before.is_file()):
        return ranks.run_on_rank0(lambda: read_before(folder.before))
    common: dict[str, Any] = {"k": config.run.k, "device": device_of(config), "options": options}
    split = parts.split
    content = {
        "test": {
            form: as_json(report)
            for form, report in evaluate_before(model, forms, split.test, split.gallery, **common).items()
        }
    }
    if parts.validation is not None:
        held = evaluate_before(model, forms, parts.validation, None, **common)
        content["validation"] = {form: as_json(report)["means"][config.run.monitor] for form, report in held.items()}
    ranks.run_on_rank0(lambda: write_json(folder.before, content))
    return content


@dataclass(frozen=True)
class Choice:
    """The weights that a run keeps.

    Attributes:
        point: 0 the start, 1 the best epoch (the last one, without validation), between: of the line from one to the
            other.
        validation: its ``run.monitor`` on the validation classes; None without.
    """

    point: float
    validation: float | None


def choose_weights(
    config: Config,
    learner: Learner,
    start: Start,
    trained: float | None,
    reduce: Callable[[EmbeddingModel], None],
    *,
    announce: Announce,
) -> Choice:
    """Set the model to the best point from the start's weights to the present ones, the later of equals; reduce it.

    Each point is judged as it would be kept, reduced. Of a random head only the ends count, as weights between it and
    the trained one belong to no embedding.

    Args:
        config: of the run; ``run.interpolate`` are the points.
        learner: with the weights of the chosen epoch.
        start: see :func:`prepare_start`.
        trained: ``run.monitor`` of the present weights on the validation classes; None, if there are none, takes the
            last of the points.
        reduce: sets the model's reduction, see :func:`set_reduction`.
        announce: receives a line about what is kept.
    """
    points = sorted(config.run.interpolate, reverse=True)
    if config.model.head == "linear":
        points = [point for point in points if point in (0, 1)] or [1]
    model = learner.model.to(device_of(config))
    if trained is None or learner.validate is None:
        _set_point(model, start.weights, points[0])
        reduce(model)
        best = Choice(points[0], None)
    else:
        end, values = _copied(model), {}
        for point in points:
            _set_point(model, start.weights, point)
            reduce(model)
            reduced = model.reduction is not None
            unchanged = point == 1 and not reduced
            values[point] = trained if unchanged else learner.validate(model).means[config.run.monitor]
            model.reduction = None
            model.load_state_dict(end)
        best = Choice(*max(values.items(), key=lambda pair: (pair[1], pair[0])))
        _set_point(model, start.weights, best.point)
        reduce(model)
    if best.point < 1 or model.reduction is not None:
        named = {0.0: "the start's weights", 1.0: "the chosen epoch's weights"}
        weights = named.get(best.point, f"weights {best.point:.0%} of the way from the start")
        cut = "" if model.reduction is None else f", cut from {model.train_dim:,} to {model.embedding_dim:,} columns"
        value = "" if best.validation is None else f": {config.run.monitor} {best.validation:.4f} on validation classes"
        announce(f"keeping   {weights}{cut}{value}")
    return best


def _copied(model: EmbeddingModel) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def _set_point(model: EmbeddingModel, start: Mapping[str, Tensor], point: float) -> None:
    """Move the weights to start + point (weights - start); counts of batches stay."""
    if point == 1:
        return
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(start[name].to(tensor.device, tensor.dtype).lerp(tensor, point) if point else start[name])


def set_reduction(
    config: Config, model: EmbeddingModel, items: Items, *, options: Mapping[str, Any], ranks: Ranks
) -> None:
    """Fit the reduction to ``model.embedding_dim`` columns to training items, if the trained vectors have more."""
    dim = config.model.embedding_dim
    if dim >= model.train_dim:
        return
    rows = sample_rows(len(items), seed=config.run.seed)
    sample, _ = embed(model, items.subset(rows), description="reducing", **{**options, "ranks": ranks})
    device = next(model.parameters()).device
    model.reduction = ranks.run_on_rank0(lambda: pca(sample.vectors, dim)).to(device)

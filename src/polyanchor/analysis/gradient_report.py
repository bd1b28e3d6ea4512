"""Write the gradients of a finished run: numbers, curves, figures."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._optional import MissingExtraError, load
from polyanchor.analysis.capacity import Capacity, TrainingBatches, capacity_of, joined
from polyanchor.analysis.gradients import (
    ClassStrength,
    Concentration,
    CosineLoss,
    Curve,
    SimilarityGradient,
    class_strength,
    concentration,
    pull_push_curve,
    reach,
    response,
    strength,
)
from polyanchor.config.builders import device_of, make_loss, make_transforms
from polyanchor.config.loading import change_config
from polyanchor.config.schema import LOSSES, Config, MultiProxyAnchor
from polyanchor.runs.folder import RunFolder, without_nan, write_json
from polyanchor.runs.load import Trained, open_trained
from polyanchor.training.train import fit
from polyanchor.types import Announce
from polyanchor.viz.figures import blank, write_figures

PULL, PUSH, ALL = "#0072b2", "#d55e00", "#333333"
AGAINST = "normsoftmax", "proxy-nca", "softtriple"
"""Softmax-type losses whose curves are drawn beside the family's."""
LINES = (  # Okabe and Ito's colours, with different dashes; lines that may coincide grow thinner
    ("#56b4e9", "-", 6.0),
    ("#d55e00", "-", 3.5),
    ("#009e73", "-", 1.8),
    ("#cc79a7", "--", 1.6),
    ("#0072b2", "--", 1.6),
    ("#e69f00", "--", 1.6),
    ("#333333", ":", 1.6),
)
_DOTS = 4_000  # more would only make the file larger


def draw_gradients(
    gradient: SimilarityGradient, curves: Mapping[str, Curve], epochs: Sequence[Mapping[str, Any]], folder: Path
) -> tuple[Path, ...]:
    """Write ``similarity``, ``curves`` and, if epochs were measured, ``capacity``, each as ``.svg`` and ``.png``.

    Args:
        gradient: of one batch.
        curves: name of a loss -> its curve, at most seven.
        epochs: rows of :class:`~polyanchor.analysis.capacity.Capacity`, or none.
        folder: to write to; created if missing.
    """
    makers = {"similarity": partial(_similarity, gradient), "curves": partial(_draw_curves, curves)}
    return write_figures(makers | ({"capacity": partial(_capacity, epochs)} if epochs else {}), folder)


def _similarity(gradient: SimilarityGradient) -> Any:
    """A dot for each item and class, at the cosine of the class's nearest proxy; between items one for each pair."""
    figure = blank(7.5, 3.2)
    values, cosines, own = len(gradient.values) * gradient.values, gradient.similarity, gradient.own
    if gradient.targets is gradient.directions:
        drawn = torch.eye(len(values), dtype=torch.bool).logical_not()
    else:
        classes = int(gradient.columns.max()) + 1
        values = len(values) * gradient.by_class()
        cosines = cosines.unflatten(1, (classes, -1)).amax(dim=2)
        own = gradient.labels[:, None] == torch.arange(classes)
        drawn = torch.ones_like(own)
    panels = (("pull: -B dL/ds, own class", own, -1, PULL), ("push: B dL/ds, other classes", ~own, 1, PUSH))
    for axes, (label, mask, sign, colour) in zip(figure.subplots(1, 2), panels, strict=True):
        x, y = cosines[mask & drawn], sign * values[mask & drawn]
        step, size = -(-len(x) // _DOTS), 6 if len(x) > 500 else 14
        axes.scatter(x[::step], y[::step], s=size, color=colour, alpha=0.5, linewidths=0, rasterized=True)
        axes.set(xlabel="cosine", ylabel=label)
        axes.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    return figure


def _draw_curves(curves: Mapping[str, Curve]) -> Any:
    """Pull and push as shares of the curve's largest value, since the losses differ in scale."""
    figure = blank(8.2, 3.2)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, part in zip(panels, ("pull", "push"), strict=True):
        for (name, curve), (colour, dashes, width) in zip(curves.items(), LINES, strict=False):
            values = getattr(curve, part)
            largest = max(map(abs, values)) or 1.0
            shares = [value / largest for value in values]
            axes.plot(curve.own, shares, dashes, color=colour, label=name, linewidth=width)
        axes.set(xlabel="similarity to the own class (cosine)", title=part)
    panels[0].set(ylabel="share of its largest value", ylim=(-0.05, 1.05))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def _capacity(epochs: Sequence[Mapping[str, Any]]) -> Any:
    figure = blank(7.5, 3.2)
    left, right = figure.subplots(1, 2)
    numbers = [row["epoch"] for row in epochs]
    marker = "o" if len(numbers) < 25 else ""
    for name, label, colour, dashes in (
        ("usable", "whole gradient", ALL, "-"),
        ("usable_pull", "pull", PULL, "--"),
        ("usable_push", "push", PUSH, "-."),
    ):
        shares = [row[name] for row in epochs]
        left.plot(numbers, shares, dashes, color=colour, label=label, marker=marker, markersize=3)
    left.set(xlabel="epoch", ylabel="share of items with a usable gradient", ylim=(-0.03, 1.03))
    low, middle, high = zip(*(row["quantiles"] for row in epochs), strict=True)
    right.fill_between(numbers, low, high, color=ALL, alpha=0.2, linewidth=0, label="10 to 90 % of the items")
    right.plot(numbers, middle, color=ALL, label="median", marker=marker, markersize=3)
    right.set(xlabel="epoch", ylabel="length of the gradient, times B", ylim=(0, None))
    for axes in (left, right):
        axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), fontsize=8)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def report_gradients(
    run: Path,
    out: Path,
    *,
    settings: tuple[str, ...] = (),
    batches: int = 4,
    movers: int = 24,
    reference: tuple[str, ...] = AGAINST,
    over_training: bool = False,
    announce: Announce = lambda line: None,
) -> dict[str, Any]:
    """Measure the gradients of a finished run on its own training batches.

    Writes ``gradients.json`` and ``similarity``, ``curves`` and (with ``over_training``) ``capacity`` as ``.svg`` and
    ``.png``.

    Args:
        run: its folder.
        out: folder to write; files of the same names are replaced.
        settings: changes to its ``data``, ``images``, ``batches`` and ``run`` keys.
        batches: of the first epoch, measured with the run's final weights.
        movers: items of the first batch to move, to see whose gradients change.
        reference: names of losses, with their default options, whose curves are drawn beside the family's three.
        over_training: train the run's configuration again, in a temporary folder, and measure after every epoch.
        announce: receives progress lines.

    Returns:
        The content of ``gradients.json``.

    Raises:
        FileNotFoundError: no run, or one that is not finished.
        ValueError: an unknown loss, a number out of range.
        MissingExtraError: matplotlib is not installed.
    """
    _check.count("--batches", batches)
    _check.count("movers", movers)
    for name in reference:
        _check.one_of("--reference", name, tuple(LOSSES))
    if len(reference) > len(LINES) - 4:
        raise InputError(f"--reference takes at most {len(LINES) - 4} losses, for one figure, got {reference}")
    load("matplotlib", "report")  # an error before the work
    trained = open_trained(run, settings)
    loss = CosineLoss(trained.loss)
    content: dict[str, Any] = {"run": str(run), "loss": trained.config.loss.model_dump()}
    measured = _training_batches(trained, batches)
    embedded = list(measured.embedded(trained.model.to(device_of(trained.config))))
    gradients = [loss.at(*batch) for batch in embedded]
    received = joined([strength(gradient) for gradient in gradients])
    content |= {"batches": len(gradients), "batch_size": len(gradients[0].labels)}
    content["strength"] = capacity_of(received)
    pull, push = content["strength"]["pull"], content["strength"]["push"]
    content["pull_share"] = pull / (pull + push) if pull + push else None
    content["items"] = {
        "class": trained.classes[torch.cat([labels for _, labels in embedded])].tolist(),
        "pull": received.pull.tolist(),
        "push": received.push.tolist(),
        "length": received.norm.tolist(),
    }
    content["classes"] = [_classes(gradient, trained.classes) for gradient in gradients]
    content["concentration"] = _concentration([concentration(gradient) for gradient in gradients])
    content["response"] = _response(loss, *embedded[0], movers)
    curves, notes = _curves(trained, loss, reference)
    content["curves"] = {name: asdict(curve) for name, curve in curves.items()}
    if over_training:
        announce("training the configuration once more to measure its gradients after every epoch")
        content["over_training"] = _over_training(trained, measured, RunFolder(run), announce)
    content["notes"] = notes
    out.mkdir(parents=True, exist_ok=True)
    epochs = content["over_training"]["epochs"] if over_training else []
    draw_gradients(gradients[0], curves, epochs, out)
    content = without_nan(content)
    write_json(out / "gradients.json", content)
    return content


def _training_batches(trained: Trained, count: int) -> TrainingBatches:
    transform = make_transforms(trained.config, trained.model.statistics)[0]
    return TrainingBatches(trained.config, trained.parts.train, transform, trained.classes, count)


def _classes(gradient: SimilarityGradient, ids: Tensor) -> dict[str, list[float]]:
    numbers = class_strength(gradient)
    return {name: getattr(numbers, name).tolist() for name in ClassStrength.__dataclass_fields__} | {
        "classes": ids[numbers.classes].tolist()
    }


def _concentration(batches: list[Concentration]) -> dict[str, float]:
    """Means over the classes and items that have something to divide, and the largest values possible."""
    pull, items, push, others = (
        torch.cat([getattr(batch, name) for batch in batches]).double() for name in Concentration.__dataclass_fields__
    )
    return {
        "pull_items": float(pull.nanmean()),
        "pull_of": float(items.mean()),
        "push_classes": float(push.nanmean()),
        "push_of": float(others.mean()),
        "classes_without_pull": int(pull.isnan().sum()),
        "items_without_push": int(push.isnan().sum()),
    }


def _response(loss: CosineLoss, embeddings: Tensor, labels: Tensor, movers: int) -> dict[str, Any]:
    rows = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:movers]
    reached = reach(response(loss, embeddings, labels, rows), labels, rows)
    return {"movers": len(rows)} | {part: asdict(numbers) for part, numbers in reached.items()}


def _curves(trained: Trained, loss: CosineLoss, reference: tuple[str, ...]) -> tuple[dict[str, Curve], list[str]]:
    own = torch.linspace(-0.2, 0.98, 60, dtype=torch.float64)
    sections: dict[str, Any] = {
        f"family, {anchor}": MultiProxyAnchor(anchor=anchor) for anchor in ("class", "data", "mixed")
    }
    sections |= {name: LOSSES[name].model_validate({"name": name}) for name in reference}
    curves, notes = {}, []
    for name, section in sections.items():
        config: Config = trained.config.model_copy(update={"loss": section})
        try:
            curves[name] = pull_push_curve(CosineLoss(make_loss(config, 8)), own)
        except MissingExtraError as missing:
            notes.append(f"no curve of {name}: {missing}")
    return curves | {"this run": pull_push_curve(loss, own)}, notes


def _over_training(trained: Trained, batches: TrainingBatches, run: RunFolder, announce: Announce) -> dict[str, Any]:
    """The callback's rows, and whether the losses were the same as in the run."""
    capacity = Capacity(batches)
    config = change_config(trained.config, ("run.loggers=[]", "run.log_images=0"))
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(config, RunFolder(Path(folder) / "run"), announce=announce, callbacks=[capacity])
    before = run.read_results().get("epochs") or [] if run.results.is_file() else []
    losses, again = ([row.get("loss") for row in rows] for rows in (before, fitted.epochs))
    return {"epochs": capacity.rows, "same_losses_as_the_run": losses == again}

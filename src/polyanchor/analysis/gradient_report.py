"""A finished run to the folder that shows its gradients: numbers, curves, figures."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._extras import MissingExtraError, load
from polyanchor.analysis.capacity import Capacity, TrainingBatches, capacity_of, joined
from polyanchor.analysis.gradient_figures import LINES, draw_gradients
from polyanchor.analysis.gradient_response import reach, response
from polyanchor.analysis.gradients import (
    ClassStrength,
    Concentration,
    Curve,
    class_strength,
    concentration,
    pull_push_curve,
    strength,
)
from polyanchor.analysis.similarity_gradient import CosineLoss, SimilarityGradient
from polyanchor.training.config import Config
from polyanchor.training.config_file import change_config
from polyanchor.training.device import device_of
from polyanchor.training.fit import fit
from polyanchor.training.loss_config import LOSSES, MultiProxyAnchor
from polyanchor.training.run_folder import RunFolder, without_nan, write_json
from polyanchor.training.setup import make_loss, make_transforms
from polyanchor.training.summary import Announce
from polyanchor.training.trained import Trained, open_trained

AGAINST = "normsoftmax", "proxy-nca", "softtriple"
"""Softmax-type losses whose curves are drawn beside the family's."""


def report_gradients(
    run: Path,
    out: Path,
    *,
    settings: tuple[str, ...] = (),
    batches: int = 4,
    movers: int = 24,
    against: tuple[str, ...] = AGAINST,
    over_training: bool = False,
    announce: Announce = lambda line: None,
) -> dict[str, Any]:
    """Measure the gradients of a finished run on its own training batches and write what was found.

    Writes ``gradients.json`` and ``similarity``, ``curves`` and (with ``over_training``) ``capacity`` as ``.svg`` and
    ``.png``.

    Args:
        run: its folder.
        out: folder to write; files of the same names are replaced.
        settings: changes to its ``data``, ``images``, ``batches`` and ``run`` keys.
        batches: of the first epoch, measured with the weights that the run left.
        movers: items of the first batch that are moved to see whose gradients answer.
        against: names of losses, with their default options, whose curves stand beside the family's three.
        over_training: train the run's configuration once more, in a temporary folder, measuring after every epoch.
        announce: receives lines about what is being done.

    Returns:
        What ``gradients.json`` holds.

    Raises:
        FileNotFoundError: no run, or one that is not finished.
        ValueError: an unknown loss, a number out of range.
        MissingExtraError: matplotlib is not installed.
    """
    _check.count("--batches", batches)
    _check.count("movers", movers)
    for name in against:
        _check.one_of("--against", name, tuple(LOSSES))
    if len(against) > len(LINES) - 4:
        raise InputError(f"--against takes at most {len(LINES) - 4} losses, as many as a figure shows, got {against}")
    load("matplotlib", "report")  # before the work rather than after it
    trained = open_trained(run, settings)
    loss = CosineLoss(trained.loss)
    content: dict[str, Any] = {"run": str(run), "loss": trained.config.loss.model_dump()}
    chosen = _training_batches(trained, batches)
    model = trained.model.to(device_of(trained.config))
    embedded = list(chosen.embedded(model))
    found = [loss.at(*batch) for batch in embedded]
    content |= {"batches": len(found), "batch_size": len(found[0].labels)}
    content["strength"] = capacity_of(joined([strength(one) for one in found]))
    pull, push = content["strength"]["pull"], content["strength"]["push"]
    content["pull_share"] = pull / (pull + push) if pull + push else None
    content["items"] = _items(embedded, found, trained.classes)
    content["classes"] = [_classes(one, trained.classes) for one in found]
    content["concentration"] = _concentration([concentration(one) for one in found])
    content["response"] = _response(loss, *embedded[0], movers)
    curves, notes = _curves(trained, loss, against)
    content["curves"] = {name: asdict(curve) for name, curve in curves.items()}
    if over_training:
        announce("training the configuration once more to measure its gradients after every epoch")
        content["over_training"] = _over_training(trained, chosen, RunFolder(run), announce)
    content["notes"] = notes
    out.mkdir(parents=True, exist_ok=True)
    epochs = content["over_training"]["epochs"] if over_training else []
    draw_gradients(found[0], curves, epochs, out)
    content = without_nan(content)
    write_json(out / "gradients.json", content)
    return content


def _training_batches(trained: Trained, count: int) -> TrainingBatches:
    view = make_transforms(trained.config, trained.model.statistics)[0]
    return TrainingBatches(trained.config, trained.parts.train, view, trained.classes, count)


def _items(
    embedded: list[tuple[Tensor, Tensor]], found: list[SimilarityGradient], ids: Tensor
) -> dict[str, list[float]]:
    """Of each item of the batches: the data source's id of its class, pull, push, length of its gradient."""
    each = joined([strength(one) for one in found])
    numbers = {"pull": each.pull, "push": each.push, "length": each.norm}
    return {"class": ids[torch.cat([labels for _, labels in embedded])].tolist()} | {
        name: values.tolist() for name, values in numbers.items()
    }


def _classes(found: SimilarityGradient, ids: Tensor) -> dict[str, list[float]]:
    """Of each class of one batch."""
    numbers = class_strength(found)
    return {name: getattr(numbers, name).tolist() for name in ClassStrength.__dataclass_fields__} | {
        "classes": ids[numbers.classes].tolist()
    }


def _concentration(found: list[Concentration]) -> dict[str, float]:
    """Means over the classes and items that have something to divide, and over how many it could have been."""
    pull, items, push, others = (
        torch.cat([getattr(one, name) for one in found]).double() for name in Concentration.__dataclass_fields__
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


def _curves(trained: Trained, loss: CosineLoss, against: tuple[str, ...]) -> tuple[dict[str, Curve], list[str]]:
    own = torch.linspace(-0.2, 0.98, 60, dtype=torch.float64)
    wanted: dict[str, Any] = {
        f"family, {anchor}": MultiProxyAnchor(anchor=anchor) for anchor in ("class", "data", "mixed")
    }
    wanted |= {name: LOSSES[name].model_validate({"name": name}) for name in against}
    curves, notes = {}, []
    for name, section in wanted.items():
        config: Config = trained.config.model_copy(update={"loss": section})
        try:
            curves[name] = pull_push_curve(CosineLoss(make_loss(config, 8)), own)
        except MissingExtraError as missing:
            notes.append(f"no curve of {name}: {missing}")
    return curves | {"this run": pull_push_curve(loss, own)}, notes


def _over_training(trained: Trained, batches: TrainingBatches, run: RunFolder, announce: Announce) -> dict[str, Any]:
    """The callback's rows, and whether the training went as that of the run did."""
    capacity = Capacity(batches)
    config = change_config(trained.config, ("run.loggers=[]", "run.log_images=0"))  # it is no run of its own
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(config, RunFolder(Path(folder) / "run"), announce=announce, callbacks=[capacity])
    before = run.read_results().get("epochs") or [] if run.results.is_file() else []
    losses, again = ([row.get("loss") for row in rows] for rows in (before, fitted.epochs))
    return {"epochs": capacity.rows, "same_losses_as_the_run": losses == again}

"""A finished run to the folder that shows its local centres: numbers, figures, contact sheets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._extras import load
from polyanchor._files import replacing
from polyanchor.analysis.contact_sheet import contact_sheet, nearest_rows
from polyanchor.analysis.proxies import ClassCentres, ProxyStudy, study_proxies
from polyanchor.analysis.proxy_figures import draw_study
from polyanchor.data.items import Items
from polyanchor.evaluation.embed import embed
from polyanchor.losses.proxies import proxies_of
from polyanchor.training.device import device_of
from polyanchor.training.run_folder import write_json
from polyanchor.training.setup import make_transforms
from polyanchor.training.trained import Trained, open_trained

NAMES = 8
"""Items that are named, or shown, for a centre."""


def report_proxies(
    run: Path,
    out: Path,
    *,
    part: str = "train",
    settings: tuple[str, ...] = (),
    classes: int = 4,
    merged_above: float | None = None,
) -> dict[str, Any]:
    """Study the proxies of a finished run and write what was found.

    Writes ``proxies.json``, ``centres`` and (where sub-classes are known) ``agreement`` as ``.svg`` and ``.png``, and
    for images ``sheets/class-ID.png``.

    Args:
        run: its folder.
        out: folder to write; files of the same names are replaced.
        part: ``"train"``: the classes that trained; ``"test"``: test items of those same classes.
        settings: changes to its ``data``, ``images``, ``batches`` and ``run`` keys.
        classes: so many classes are shown, half with the most centres in use and half with the fewest.
        merged_above: two centres of a cosine above this are merged; None: 0.95.

    Returns:
        What ``proxies.json`` holds.

    Raises:
        FileNotFoundError: no run, or one that is not finished.
        ValueError: a loss without proxies, no item of a class that trained, a number out of range, or
            ``merged_above`` where each class has one centre.
        MissingExtraError: matplotlib is not installed.
    """
    _check.one_of("part", part, ("train", "test"))
    asked, merged_above = merged_above, 0.95 if merged_above is None else merged_above
    if not -1 <= merged_above <= 1:
        raise InputError(f"--merged-above must be a cosine, from -1 to 1, got {merged_above}")
    load("matplotlib", "report")  # before the work rather than after it
    trained = open_trained(run, settings)
    config, proxies = trained.config, proxies_of(trained.loss)
    if proxies is None:
        raise InputError(
            f"this needs a loss with proxies, got loss.name = {config.loss.name!r} in {run}, which has none; train "
            "with multi-proxy-anchor or softtriple"
        )
    if asked is not None and proxies.shape[1] == 1:
        raise InputError("--merged-above is about several centres of a class, and each has one here; leave it out")
    items, notes = _items(trained, part)
    embeddings, skipped = embed(
        trained.model.to(device_of(config)),
        items,
        make_transforms(config, trained.model.statistics)[1],
        workers=config.data.workers,
        on_bad=config.data.on_bad_image,
        channels_last=config.run.channels_last,
    )
    if skipped:
        notes.append(f"{len(skipped)} image(s) could not be read and were left out: {', '.join(skipped[:3])}")
        items = items.without(skipped)
    gamma = float(getattr(config.loss, "gamma", 0.1))
    study = study_proxies(embeddings, proxies, trained.classes, gamma=gamma, merged_above=merged_above)
    draw_study(study, out)
    shown = {one.class_id: _show(study, items, one, out) for one in _extremes(study.classes, classes)}
    content = {
        "run": str(run),
        "part": part,
        "loss": config.loss.name,
        "items": len(items),
        "proxies_per_class": proxies.shape[1],
        "gamma": gamma,
        "merged_above": merged_above,
        "means": {name: _number(value) for name, value in study.means.items()},
        "classes": [_as_json(one) | shown.get(one.class_id, {}) for one in study.classes],
        "notes": [*trained.parts.split.notes, *notes],
    }
    write_json(out / "proxies.json", content)
    return content


def _items(trained: Trained, part: str) -> tuple[Items, list[str]]:
    """The items of the part whose class has proxies, and what was left out."""
    items = trained.parts.train if part == "train" else trained.parts.split.test
    known = torch.isin(items.labels, trained.classes)
    if not known.any():
        raise InputError(
            f"proxies stand for classes that trained, and none of the {len(items)} {part} items is of one (the split "
            "is zero-shot); take --part train"
        )
    if known.all():
        return items, []
    return items.subset(known), [f"{int((~known).sum())} {part} items of classes that did not train were left out"]


def _extremes(classes: Sequence[ClassCentres], wanted: int) -> list[ClassCentres]:
    """The classes whose items are divided among the most and the fewest centres, most first."""
    ranked = sorted(classes, key=lambda one: -one.effective_distinct)
    if wanted >= len(ranked):
        return ranked
    return ranked[: wanted - wanted // 2] + ranked[len(ranked) - wanted // 2 :]


def _show(study: ProxyStudy, items: Items, one: ClassCentres, out: Path) -> dict[str, Any]:
    """Names of the items nearest to each centre; for images also a contact sheet."""
    rows = nearest_rows(study, items, one, NAMES)
    shown: dict[str, Any] = {"nearest": {str(centre): [items.name(row) for row in rows[centre]] for centre in rows}}
    if not items.is_vectors:
        sheet = Path("sheets") / f"class-{one.class_id}.png"
        (out / sheet).parent.mkdir(parents=True, exist_ok=True)
        with replacing(out / sheet) as unfinished:
            contact_sheet(study, items, one, images=NAMES).save(unfinished, "PNG")
        shown["sheet"] = sheet.as_posix()
    return shown


def _as_json(one: ClassCentres) -> dict[str, Any]:
    lists = {"usage": [*one.usage], "counts": [*one.counts], "merged": [[*group] for group in one.merged]}
    return asdict(one) | lists | {"in_use": one.in_use, "spread": _number(one.spread)}


def _number(value: float) -> float | None:
    return None if value != value else value

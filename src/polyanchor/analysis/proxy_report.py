"""Write the local centres of a finished run: numbers, figures, contact sheets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._io import replacing
from polyanchor._optional import load
from polyanchor.analysis.proxies import ClassCentres, ProxyStudy, study_proxies
from polyanchor.config.builders import device_of, make_transforms
from polyanchor.datasets.items import Items
from polyanchor.losses.proxies import proxies_of
from polyanchor.runs.embed import embed
from polyanchor.runs.folder import write_json
from polyanchor.runs.load import Trained, open_trained
from polyanchor.viz.figures import blank, write_figures
from polyanchor.viz.sheets import Line, sheet

if TYPE_CHECKING:
    from PIL.Image import Image

COLOURS = "#3b78b0", "#e2953b", "#9a9a9a"
NAMES = 8
"""Items that are named, or shown, for a centre."""


def draw_study(study: ProxyStudy, folder: Path) -> tuple[Path, ...]:
    """Write ``centres`` and, where sub-classes are known, ``agreement``, each as ``.svg`` and ``.png``."""
    makers = {"centres": partial(_centres, study)}
    return write_figures(makers | ({"agreement": partial(_agreement, study)} if "ami" in study.means else {}), folder)


def _centres(study: ProxyStudy) -> Any:
    figure = blank(5.5, 3.2)
    axes, most = figure.add_subplot(), len(study.classes[0].counts)
    bins = [0.75 + step / 2 for step in range(2 * most)]  # half a centre wide, 1 and K in the middle of the ends
    numbers = {
        "of nearest centres, merged ones as one": [centres.effective_distinct for centres in study.classes],
        "of soft usage": [centres.effective_soft for centres in study.classes],
    }
    for (label, values), colour in zip(numbers.items(), COLOURS, strict=False):
        axes.hist(values, bins, label=label, color=colour, histtype="stepfilled", alpha=0.55)
    axes.set(xlabel=f"effective number of centres, of {most}", ylabel="classes", xlim=(0.5, most + 0.5))
    axes.yaxis.get_major_locator().set_params(integer=True)  # with few classes ticks would be fractions
    axes.legend(frameon=False)
    return figure


def _agreement(study: ProxyStudy) -> Any:
    """Bars over the classes, best first, and their means as lines."""
    agreements = [centres.agreement for centres in study.classes if centres.agreement]
    agreements.sort(key=lambda agreement: -agreement.ami)
    figure = blank(min(12.0, 6 + 0.15 * len(agreements)), 5)
    upper, lower = figure.subplots(2, 1, sharex=True)
    measures = {
        upper: {"proxies": "ami", "k-means": "kmeans_ami"},
        lower: {"proxies": "purity", "k-means": "kmeans_purity", "by chance": "random_purity"},
    }
    for axes, bars in measures.items():
        for number, ((label, name), colour) in enumerate(zip(bars.items(), COLOURS, strict=False)):
            mean, share = study.means[name], 0.85 / len(bars)
            places = [place + (number - (len(bars) - 1) / 2) * share for place in range(len(agreements))]
            heights = [getattr(agreement, name) for agreement in agreements]
            axes.bar(places, heights, share, color=colour, label=f"{label}, mean {mean:.3f}")
            axes.axhline(mean, color=colour, linewidth=0.8, linestyle=":")
        axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), fontsize=8)
    upper.set_ylabel("adjusted mutual information")
    lower.set(ylabel="purity", xlabel=f"{len(agreements)} classes with known sub-classes", xticks=[])
    return figure


def nearest_rows(study: ProxyStudy, items: Items, centres: ClassCentres, images: int) -> dict[int, list[int]]:
    """Rows of up to ``images`` items nearest to each centre in use, among those that have no nearer centre.

    Returns:
        Centre -> row numbers, nearest first; the centre with most items first.
    """
    order = sorted((k for k, count in enumerate(centres.counts) if count), key=lambda k: -centres.counts[k])
    of_class, nearest_to = items.labels == centres.class_id, {}
    for centre in order:
        rows = (of_class & (study.centre == centre)).nonzero()[:, 0]
        nearest = study.similarity[rows].sort(descending=True, stable=True).indices
        nearest_to[centre] = rows[nearest[:images]].tolist()
    return nearest_to


def contact_sheet(study: ProxyStudy, items: Items, centres: ClassCentres, *, images: int = 8) -> Image:
    """Up to ``images`` of the nearest images of each centre in use, with its number of items and its usage beside them.

    Where sub-classes are known, the most frequent one of the centre's items is named with its share. BadImageError for
    an image that cannot be read, ValueError for items that are vectors.
    """
    title = f"{centres.name}: {sum(centres.counts)} items, {centres.in_use} of {len(centres.counts)} centres in use"
    lines = [
        Line(_words(study, items, centres, centre), nearest)
        for centre, nearest in nearest_rows(study, items, centres, images).items()
    ]
    return sheet(items, f"{title}, effective number {centres.effective_distinct:.1f}", lines)


def _words(study: ProxyStudy, items: Items, centres: ClassCentres, centre: int) -> list[str]:
    lines = [f"centre {centre}", f"nearest of {centres.counts[centre]} items", f"usage {centres.usage[centre]:.1%}"]
    if items.sublabels is not None:
        own = items.sublabels[(items.labels == centres.class_id) & (study.centre == centre)]
        sub_classes, counts = own.unique(return_counts=True)
        most = int(counts.argmax())
        lines.append(f"sub-class {int(sub_classes[most])}: {int(counts[most]) / len(own):.0%}")
    return lines


def report_proxies(
    run: Path,
    out: Path,
    *,
    split: str = "train",
    settings: tuple[str, ...] = (),
    classes: int = 4,
    merged_above: float | None = None,
) -> dict[str, Any]:
    """Study the proxies of a finished run.

    Writes ``proxies.json``, ``centres`` and (where sub-classes are known) ``agreement`` as ``.svg`` and ``.png``, and
    for images ``sheets/class-ID.png``.

    Args:
        run: its folder.
        out: folder to write; files of the same names are replaced.
        split: ``"train"``: the classes that trained; ``"test"``: test items of those same classes.
        settings: changes to its ``data``, ``images``, ``batches`` and ``run`` keys.
        classes: number of classes to show, half with the most centres in use and half with the fewest.
        merged_above: two centres of a cosine above this are merged; None: 0.95.

    Returns:
        The content of ``proxies.json``.

    Raises:
        FileNotFoundError: no run, or one that is not finished.
        ValueError: a loss without proxies, no item of a class that trained, a number out of range, or
            ``merged_above`` where each class has one centre.
        MissingExtraError: matplotlib is not installed.
    """
    _check.one_of("split", split, ("train", "test"))
    threshold = 0.95 if merged_above is None else merged_above
    if not -1 <= threshold <= 1:
        raise InputError(f"--merged-above must be a cosine, from -1 to 1, got {threshold}")
    load("matplotlib", "report")  # an error before the work
    trained = open_trained(run, settings)
    config, proxies = trained.config, proxies_of(trained.loss)
    if proxies is None:
        raise InputError(
            f"this needs a loss with proxies, got loss.name = {config.loss.name!r} in {run}, which has none; train "
            "with multi-proxy-anchor or softtriple"
        )
    if merged_above is not None and proxies.shape[1] == 1:
        raise InputError("--merged-above is about several centres of a class, and each has one here; leave it out")
    items, notes = _items(trained, split)
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
    study = study_proxies(embeddings, proxies, trained.classes, gamma=gamma, merged_above=threshold)
    draw_study(study, out)
    shown = {part.class_id: _show(study, items, part, out) for part in extremes(study.classes, classes)}
    content = {
        "run": str(run),
        "split": split,
        "loss": config.loss.name,
        "items": len(items),
        "proxies_per_class": proxies.shape[1],
        "gamma": gamma,
        "merged_above": threshold,
        "means": {name: _number(value) for name, value in study.means.items()},
        "classes": [_as_json(part) | shown.get(part.class_id, {}) for part in study.classes],
        "notes": [*trained.parts.split.notes, *notes],
    }
    write_json(out / "proxies.json", content)
    return content


def _items(trained: Trained, split: str) -> tuple[Items, list[str]]:
    """The items of the part whose class has proxies, and a note on those left out."""
    items = trained.parts.train if split == "train" else trained.parts.split.test
    known = torch.isin(items.labels, trained.classes)
    if not known.any():
        raise InputError(
            f"proxies stand for classes that trained, and none of the {len(items)} {split} items is of one (the split "
            "is zero-shot); take --split train"
        )
    if known.all():
        return items, []
    return items.subset(known), [f"{int((~known).sum())} {split} items of classes that did not train were left out"]


def extremes(classes: Sequence[ClassCentres], number: int) -> list[ClassCentres]:
    """The classes whose items are divided among the most and the fewest centres, most first."""
    ranked = sorted(classes, key=lambda centres: -centres.effective_distinct)
    number = min(number, len(ranked))
    return ranked[: number - number // 2] + ranked[len(ranked) - number // 2 :]


def _show(study: ProxyStudy, items: Items, centres: ClassCentres, out: Path) -> dict[str, Any]:
    """Names of the items nearest to each centre; for images a contact sheet too."""
    rows = nearest_rows(study, items, centres, NAMES)
    shown: dict[str, Any] = {"nearest": {str(centre): [items.name(row) for row in rows[centre]] for centre in rows}}
    if not items.is_vectors:
        sheet = Path("sheets") / f"class-{centres.class_id}.png"
        (out / sheet).parent.mkdir(parents=True, exist_ok=True)
        with replacing(out / sheet) as unfinished:
            contact_sheet(study, items, centres, images=NAMES).save(unfinished, "PNG")
        shown["sheet"] = sheet.as_posix()
    return shown


def _as_json(centres: ClassCentres) -> dict[str, Any]:
    lists = {"usage": [*centres.usage], "counts": [*centres.counts], "merged": [[*group] for group in centres.merged]}
    return asdict(centres) | lists | {"in_use": centres.in_use, "spread": _number(centres.spread)}


def _number(value: float) -> float | None:
    return None if value != value else value

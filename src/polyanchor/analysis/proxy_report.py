"""A finished run to the folder that shows its local centres: numbers, figures, contact sheets."""

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


def draw_study(study: ProxyStudy, folder: Path) -> tuple[Path, ...]:
    """Write ``centres`` and, where sub-classes are known, ``agreement``, each as ``.svg`` and ``.png``.

    Args:
        study: of at least one class.
        folder: where to; made if it is not there.

    Returns:
        The files.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    makers = {"centres": partial(_centres, study)}
    return write_figures(makers | ({"agreement": partial(_agreement, study)} if "ami" in study.means else {}), folder)


def _centres(study: ProxyStudy) -> Any:
    figure = blank(5.5, 3.2)
    axes, most = figure.add_subplot(), len(study.classes[0].counts)
    bins = [0.75 + step / 2 for step in range(2 * most)]  # half a centre wide, 1 and K in the middle of the ends
    numbers = {
        "of nearest centres, merged ones as one": [one.effective_distinct for one in study.classes],
        "of soft usage": [one.effective_soft for one in study.classes],
    }
    for (label, values), colour in zip(numbers.items(), COLOURS, strict=False):
        axes.hist(values, bins, label=label, color=colour, histtype="stepfilled", alpha=0.55)
    axes.set(xlabel=f"effective number of centres, of {most}", ylabel="classes", xlim=(0.5, most + 0.5))
    axes.yaxis.get_major_locator().set_params(integer=True)  # few classes: no quarter of one
    axes.legend(frameon=False)
    return figure


def _agreement(study: ProxyStudy) -> Any:
    """Bars over the classes, best first, and the mean over them as lines."""
    found = [one.agreement for one in study.classes if one.agreement]
    found.sort(key=lambda one: -one.ami)
    wide = min(12.0, 6 + 0.15 * len(found))
    figure = blank(wide, 5)
    upper, lower = figure.subplots(2, 1, sharex=True)
    measures = {
        upper: {"proxies": "ami", "k-means": "kmeans_ami"},
        lower: {"proxies": "purity", "k-means": "kmeans_purity", "by chance": "random_purity"},
    }
    for axes, bars in measures.items():
        for number, ((label, name), colour) in enumerate(zip(bars.items(), COLOURS, strict=False)):
            mean, share = study.means[name], 0.85 / len(bars)
            places = [place + (number - (len(bars) - 1) / 2) * share for place in range(len(found))]
            axes.bar(
                places, [getattr(one, name) for one in found], share, color=colour, label=f"{label}, mean {mean:.3f}"
            )
            axes.axhline(mean, color=colour, linewidth=0.8, linestyle=":")
        axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), fontsize=8)
    upper.set_ylabel("adjusted mutual information")
    lower.set(ylabel="purity", xlabel=f"{len(found)} classes with known sub-classes", xticks=[])
    return figure


def nearest_rows(study: ProxyStudy, items: Items, one: ClassCentres, images: int) -> dict[int, list[int]]:
    """Rows of the items nearest to each centre in use, of those that have no nearer centre.

    Args:
        study: of ``items``, row for row.
        items: N.
        one: the class.
        images: at most so many rows for a centre.

    Returns:
        Centre -> row numbers, nearest first; the centre with most items first.
    """
    order = sorted((k for k, count in enumerate(one.counts) if count), key=lambda k: -one.counts[k])
    of_class, found = items.labels == one.class_id, {}
    for centre in order:
        rows = (of_class & (study.centre == centre)).nonzero()[:, 0]
        nearest = study.similarity[rows].sort(descending=True, stable=True).indices
        found[centre] = rows[nearest[:images]].tolist()
    return found


def contact_sheet(study: ProxyStudy, items: Items, one: ClassCentres, *, images: int = 8) -> Image:
    """The nearest images of each centre in use, with its number of items and its usage beside them.

    Where sub-classes are known, the most frequent one of the centre's items is named with its share.

    Args:
        study: of ``items``, row for row.
        items: images, not vectors.
        one: the class.
        images: at most so many in a row.

    Returns:
        RGB image, see :func:`polyanchor.viz.sheets.sheet`.

    Raises:
        BadImageError: an image cannot be read.
        ValueError: the items are vectors.
    """
    title = f"{one.name}: {sum(one.counts)} items, {one.in_use} of {len(one.counts)} centres in use"
    lines = [
        Line(_words(study, items, one, centre), nearest)
        for centre, nearest in nearest_rows(study, items, one, images).items()
    ]
    return sheet(items, f"{title}, effective number {one.effective_distinct:.1f}", lines)


def _words(study: ProxyStudy, items: Items, one: ClassCentres, centre: int) -> list[str]:
    lines = [f"centre {centre}", f"nearest of {one.counts[centre]} items", f"usage {one.usage[centre]:.1%}"]
    if items.sublabels is not None:
        own = items.sublabels[(items.labels == one.class_id) & (study.centre == centre)]
        found, counts = own.unique(return_counts=True)
        most = int(counts.argmax())
        lines.append(f"sub-class {int(found[most])}: {int(counts[most]) / len(own):.0%}")
    return lines


NAMES = 8
"""Items that are named, or shown, for a centre."""


def report_proxies(
    run: Path,
    out: Path,
    *,
    split: str = "train",
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
        split: ``"train"``: the classes that trained; ``"test"``: test items of those same classes.
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
    _check.one_of("split", split, ("train", "test"))
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
    study = study_proxies(embeddings, proxies, trained.classes, gamma=gamma, merged_above=merged_above)
    draw_study(study, out)
    shown = {one.class_id: _show(study, items, one, out) for one in extremes(study.classes, classes)}
    content = {
        "run": str(run),
        "split": split,
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


def _items(trained: Trained, split: str) -> tuple[Items, list[str]]:
    """The items of the part whose class has proxies, and what was left out."""
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


def extremes(classes: Sequence[ClassCentres], wanted: int) -> list[ClassCentres]:
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

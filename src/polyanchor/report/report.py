"""From a run to its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch

from polyanchor import __version__, _check
from polyanchor._extras import load
from polyanchor._files import replacing
from polyanchor.report import sections
from polyanchor.report.centres import Centres, study_centres
from polyanchor.report.classes import class_scores
from polyanchor.report.confusion import confusion
from polyanchor.report.curves import curves
from polyanchor.report.facts import PAPER, environment, facts, formulas, seen
from polyanchor.report.figures import class_data, class_labels, map_data
from polyanchor.report.galleries import Shown, typical, with_hits, worst
from polyanchor.report.measures import resamples_for
from polyanchor.report.opening import Opened, open_run
from polyanchor.report.page import render
from polyanchor.report.pictures import Place, inline, read_cells, sprites
from polyanchor.report.points import Layer, layers, views
from polyanchor.training.config_file import dump_config
from polyanchor.training.environment import environment as this_environment
from polyanchor.training.summary import Announce

_PARTS = {
    "measures": "Measures",
    "curves": "Curves",
    "queries": "Queries",
    "map": "Map",
    "classes": "Classes",
    "confusion": "Confusion",
    "centres": "Local centres",
    "run": "Configuration",
    "formulas": "What is whose",
}
_HEADLINE = "recall@1", "ndcg", "map@r"


@dataclass(frozen=True)
class Written:
    """A page.

    Attributes:
        path: the file.
        size: of it in bytes.
        queries: number of queries.
        points: items and proxies in the map.
        thumbnail: side of the map's thumbnails in pixels; 0 for vectors.
        measures: measure -> mean, and its intervals over queries and over classes as (low, high).
        notes: what the page says to mind.
    """

    path: Path
    size: int
    queries: int
    points: int
    thumbnail: int
    measures: dict[str, dict[str, Any]]
    notes: tuple[str, ...]


def write_report(
    run: Path,
    out: Path,
    *,
    part: str = "test",
    classes: Sequence[str] = (),
    queries: int = 8,
    centres: int = 4,
    points: int = 10_000,
    tsne: bool = True,
    settings: tuple[str, ...] = (),
    announce: Announce = lambda line: None,
) -> Written:
    """Write the page of a finished run; ``out`` is replaced in one step.

    Args:
        run: its folder.
        out: the file.
        part: ``"test"``, ``"validation"`` or ``"train"``: whose items are the queries.
        classes: names or ids of classes to show, of the queries' or of those that trained.
        queries: worst queries, and typical ones, to show.
        centres: classes whose local centres are shown, if none of ``classes`` trained; 0: no training items.
        points: items in the map, at most.
        tsne: whether the map has t-SNE beside the principal axes.
        settings: changes to the run's ``data``, ``images``, ``batches`` and ``run`` keys.
        announce: receives a line before each longer step.

    Raises:
        FileNotFoundError: no run, or one that is not finished.
        ValueError: a part or class that there is not, an image that cannot be read, a number out of range.
        MissingExtraError: plotly is not installed.
    """
    _check.at_least_0("queries", queries)
    _check.at_least_0("centres", centres)
    _check.count("points", points)
    if out.is_dir():
        raise IsADirectoryError(f"--out must be a file, got the folder {out}; take {out / 'report.html'}")
    load("plotly.offline", "report"), load("jinja2", "report")  # before the work rather than after it
    opened = open_run(run, part=part, settings=settings, training=bool(centres or classes))
    content, files, written = _content(opened, classes, queries, centres, points, tsne, announce)
    announce("writing the page")
    page = render(content, files)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as unfinished:
        unfinished.write_text(page, encoding="utf-8", newline="\n")
    return Written(out, out.stat().st_size, **written)


def chosen_classes(opened: Opened, names: Sequence[str]) -> list[int]:
    """Class ids by name or number.

    Raises:
        ValueError: there is no such class; the nearest name is said.
    """
    sides = [rows for rows in (opened.queries, opened.training) if rows is not None]
    numbers = torch.cat([rows.items.classes for rows in sides]).unique().tolist()
    known = {name: number for number, name in reversed(class_labels(opened, numbers).items())}
    known |= {str(number): number for number in numbers if str(number) not in known}
    for name in names:
        if name not in known:
            some = ", ".join(repr(opened.class_name(number)) for number in numbers[:3])
            near = _check.nearest(name, list(known)) or f"; the first of {len(numbers):,} are {some}"
            raise ValueError(
                f"--class must be a class of the {opened.part} or of the training items, got {name!r}{near}"
            )
    return list(dict.fromkeys(known[name] for name in names))


def _content(
    opened: Opened, names: Sequence[str], most: int, centres: int, points: int, tsne: bool, announce: Announce
) -> tuple[dict[str, Any], tuple[bytes, ...], dict[str, Any]]:
    chosen = chosen_classes(opened, names)
    report, labels_of = opened.report, opened.queries.embeddings.labels
    mrr = report.per_query["mrr"].cpu()
    found = layers(opened, points=points)
    held = study_centres(opened, chosen=chosen, classes=centres)
    bad = with_hits(opened, worst(opened.ndcg, mrr, labels_of, most))
    usual = with_hits(opened, typical(opened.ndcg, labels_of, most))
    cells = read_cells(_wanted(opened, found, [*bad, *usual], held))
    made = sprites(_of_layers(found, cells)) if cells else None
    if tsne:
        announce(f"placing {sum(len(layer.rows) for layer in found):,} points in a plane by t-SNE")
    projected = views(found, tsne=tsne)
    announce("measuring")
    numbers = [int(number) for layer in found for number in layer.labels.unique()]
    numbers += [*labels_of.unique().tolist(), *opened.searched.items.classes.tolist(), *chosen]
    numbers += [] if held is None else [one.class_id for one in held.shown]
    labels = class_labels(opened, sorted(set(numbers)))
    scores = class_scores(report.per_query, labels_of, [f"ndcg@{opened.k}", "recall@1"])
    nearest = opened.searched.embeddings.labels[opened.neighbours.ids[:, 0]]
    confused = confusion(labels_of, nearest, ~mrr.isnan())
    tables = sections.measure_tables(report)
    rows = [row["measure"] for row in tables[0]["rows"]]

    def src(where: str, row: int) -> str:
        return inline(cells[where, row]) if (where, row) in cells else ""

    show = partial(sections.gallery, opened, src=src, labels=labels)
    kept = opened.results.get("epoch")
    content = {
        "title": opened.run.resolve().name,
        "lead": f"{opened.trained.parts.split.name}, {opened.part} classes {seen(opened).partition(':')[0]}; "
        f"{opened.trained.config.loss.name} on {opened.trained.config.model.backbone}",
        "version": __version__,
        "date": date.today().isoformat(),
        "parts": _PARTS,
        "headline": [one for one in rows if one.name in (*_HEADLINE, f"ndcg@{opened.k}")],
        "notes": opened.notes,
        "facts": facts(opened),
        "queries": f"{report.queries:,}",
        "resamples": resamples_for(report.queries),
        "measures": tables,
        "curves": [one | {"said": _said(one)} for one in curves(opened.results)],
        "chosen_epoch": kept,
        "chosen_by": opened.results.get("chosen_by"),
        "shown_hits": opened.neighbours.ids.shape[1],
        "k": opened.k,
        "galleries": [
            show(title, about, shown)
            for title, about, shown in (("Worst", _WORST, bad), ("Typical", _TYPICAL, usual))
            if shown
        ],
        "map": sections.map_section(found, list(labels.values()), [one.name for one in projected], projected[0].about),
        "classes": sections.class_tables(opened, scores, chosen, labels),
        "confusion": sections.confusion_tables(confused, chosen, labels),
        "centres": sections.centres_section(opened, held, src, labels),
        "config": dump_config(opened.trained.config),
        "environment": environment(opened.results),
        "here": this_environment(),
        "formulas": formulas(opened.trained.config.loss.name),
        "paper": PAPER,
        "figures": {
            "map": map_data(opened, found, projected, made, labels),
            "classes": class_data(scores, confused, labels, opened.k),
            "curves": curves(opened.results),
            "chosen": kept,
        },
    }
    written = {
        "queries": report.queries,
        "points": sum(len(layer.rows) for layer in found),
        "thumbnail": 0 if made is None else made.side,
        "measures": {
            one.name: {
                "mean": one.over_queries.mean,
                "over_queries": (one.over_queries.low, one.over_queries.high),
                "over_classes": (one.over_classes.low, one.over_classes.high),
            }
            for one in rows
            if one.over_queries is not None and one.over_classes is not None
        },
        "notes": opened.notes,
    }
    return content, () if made is None else made.files, written


_WORST = (
    "The lowest values, at most one query of each class until all had one; of equals, the one that finds its first "
    "right item last."
)
_TYPICAL = "The values nearest to the median over all queries, at most one query of each class until all had one."


def _said(figure: dict[str, Any]) -> str:
    """A curve in words, for those who do not see it."""
    ends = []
    for line in figure["lines"]:
        known = [value for value in line["values"] if value is not None]
        ends.append(f"{line['name']} from {known[0]:.4g} to {known[-1]:.4g}")
    return ", ".join(ends)


def _wanted(opened: Opened, found: Sequence[Layer], shown: Sequence[Shown], held: Centres | None) -> list[Any]:
    """What has a thumbnail: the map's items, the galleries', the centres'."""
    wanted: list[Any] = [(layer.source, layer.rows.tolist()) for layer in found if layer.source is not None]
    wanted.append((opened.queries, [one.row for one in shown]))
    wanted.append((opened.searched, [hit.row for one in shown for hit in one.hits]))
    if held is not None and opened.training is not None:
        rows = [row for centres in held.rows.values() for near in centres.values() for row in near]
        wanted.append((opened.training, rows))
    return wanted


def _of_layers(found: Sequence[Layer], cells: dict[Place, bytes]) -> list[bytes]:
    return [cells[layer.source.part, row] for layer in found if layer.source is not None for row in layer.rows.tolist()]

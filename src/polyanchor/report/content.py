"""Everything that a page shows, gathered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from polyanchor import __version__
from polyanchor.report import sections
from polyanchor.report.centres import Centres, study_centres
from polyanchor.report.classes import class_scores
from polyanchor.report.confusion import confusion
from polyanchor.report.curves import curves
from polyanchor.report.facts import PAPER, environment, facts, formulas, seen
from polyanchor.report.figures import class_data, class_labels, map_data
from polyanchor.report.galleries import Shown, typical, with_hits, worst
from polyanchor.report.measures import Measure, resamples_for
from polyanchor.report.opening import Opened
from polyanchor.report.pictures import Place, inline, read_cells
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
class Gathered:
    """What a page is made of.

    Attributes:
        content: for the template.
        cells: thumbnails of the map's items, in their order there; none for vectors.
        points: items and proxies in the map.
        measures: with their intervals.
    """

    content: dict[str, Any]
    cells: list[bytes]
    points: int
    measures: tuple[Measure, ...]


def gather(
    opened: Opened, chosen: Sequence[int], *, queries: int, centres: int, points: int, tsne: bool, announce: Announce
) -> Gathered:
    """Choose, count and place what the page shows, for :func:`polyanchor.report.report.write_report`.

    Args:
        opened: the run.
        chosen: class ids to show.
        queries: see there.
        centres: likewise.
        points: likewise.
        tsne: likewise.
        announce: likewise.
    """
    report, labels_of = opened.report, opened.queries.embeddings.labels
    mrr = report.per_query["mrr"].cpu()
    found = layers(opened, points=points)
    held = study_centres(opened, chosen=chosen, classes=centres)
    bad = with_hits(opened, worst(opened.ndcg, mrr, labels_of, queries))
    usual = with_hits(opened, typical(opened.ndcg, labels_of, queries))
    cells = read_cells(_wanted(opened, found, [*bad, *usual], held))
    if tsne:
        announce(f"placing {sum(len(layer.rows) for layer in found):,} points in a plane by t-SNE")
    projected = views(found, tsne=tsne)
    announce("measuring")
    numbers = [int(number) for layer in found for number in layer.labels.unique()]
    numbers += [*labels_of.unique().tolist(), *opened.searched.items.classes.tolist(), *chosen]
    numbers += [] if held is None else [one.class_id for one in held.shown]
    labels = class_labels(opened, sorted(set(numbers)))
    nearest = opened.searched.embeddings.labels[opened.neighbours.ids[:, 0]]
    confused = confusion(labels_of, nearest, ~mrr.isnan())
    hit = (nearest == labels_of).double().masked_fill(mrr.isnan(), float("nan"))  # whatever run.k asks for
    scores = class_scores({**report.per_query, "recall@1": hit}, labels_of, [f"ndcg@{opened.k}", "recall@1"])
    tables = sections.measure_tables(report)
    rows = [row["measure"] for row in tables[0]["rows"]]

    def src(where: str, row: int) -> str:
        return inline(cells[where, row]) if (where, row) in cells else ""

    show = partial(sections.gallery, opened, src=src, labels=labels)
    kept = opened.results.get("epoch")
    content = {
        "title": _title(opened.run.resolve()),
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
        "map": sections.map_section(found, labels, [one.name for one in projected], projected[0].about),
        "classes": sections.class_tables(opened, scores, chosen, labels),
        "confusion": sections.confusion_tables(confused, chosen, labels),
        "centres": sections.centres_section(opened, held, src, labels),
        "config": dump_config(opened.trained.config),
        "environment": environment(opened.results),
        "here": this_environment(),
        "formulas": formulas(opened.trained.config.loss.name),
        "paper": PAPER,
        "figures": {
            "map": map_data(opened, found, projected, labels),
            "classes": class_data(scores, confused, labels, opened.k),
            "curves": curves(opened.results),
            "chosen": kept,
        },
    }
    pictures = _of_layers(found, cells) if cells else []
    return Gathered(content, pictures, sum(len(layer.rows) for layer in found), tuple(rows))


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


def _title(run: Path) -> str:
    """The folder's name; ``run`` says nothing to who gets the page, the folder that it lies in does.

    Example:
        >>> _title(Path("demo/run")), _title(Path("runs/photos"))
        ('demo', 'photos')
    """
    return run.parent.name if run.name == "run" else run.name

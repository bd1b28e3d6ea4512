"""The content of the report page, section by section."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from polyanchor import __version__
from polyanchor.analysis.proxies import ClassCentres
from polyanchor.config.loading import dump_config
from polyanchor.report.data import PAPER, ReportData, environment, formulas, run_facts, seen
from polyanchor.report.figures import (
    KINDS,
    class_data,
    class_figure,
    class_labels,
    curve_figure,
    curves,
    map_data,
    templates,
)
from polyanchor.report.map import Centres, Layer, layers, study_centres, views
from polyanchor.report.scores import (
    ClassScore,
    Confusion,
    Measure,
    Shown,
    class_scores,
    confusion,
    extremes,
    interval_of,
    measures,
    resamples_for,
    shown_classes,
    strongest,
    typical,
    with_hits,
    worst,
)
from polyanchor.report.thumbnails import inline, read_cells
from polyanchor.training.summary import environment as this_environment
from polyanchor.types import Announce, RetrievalReport

ENDS = 10
"""Classes in the list of the worst, and in that of the best."""
PAIRS, MATRIX = 15, 20
"""Confusions in the list, classes in the table."""
_SECTIONS = {
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
_WORST = (
    "The lowest values, at most one query of each class until all had one; of equals, the one that finds its first "
    "right item last."
)
_TYPICAL = "The values nearest to the median over all queries, at most one query of each class until all had one."
Labels = Mapping[int, str]
Picture = Callable[[str, int], str]
"""Part and row to the address of its thumbnail; an empty text for vectors."""


@dataclass(frozen=True)
class Gathered:
    """The content of a page.

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
    data: ReportData, chosen: Sequence[int], *, queries: int, centres: int, points: int, tsne: bool, announce: Announce
) -> Gathered:
    """Compute everything that the page shows, for :func:`polyanchor.report.write.write_report`."""
    report, query_labels = data.report, data.queries.embeddings.labels
    mrr = report.per_query["mrr"].cpu()
    drawn = layers(data, points=points)
    studied = study_centres(data, chosen=chosen, classes=centres)
    worst_queries = with_hits(data, worst(data.ndcg, mrr, query_labels, queries))
    typical_queries = with_hits(data, typical(data.ndcg, query_labels, queries))
    cells = read_cells(_with_thumbnail(data, drawn, [*worst_queries, *typical_queries], studied))
    count = sum(len(layer.rows) for layer in drawn)
    if tsne:
        announce(f"placing {count:,} points in a plane by t-SNE")
    projections = views(drawn, tsne=tsne)
    announce("measuring")
    class_ids = {int(class_id) for layer in drawn for class_id in layer.labels.unique()}
    class_ids.update(query_labels.unique().tolist(), data.searched.items.classes.tolist(), chosen)
    class_ids.update([] if studied is None else [centre_class.class_id for centre_class in studied.shown])
    labels = class_labels(data, sorted(class_ids))
    nearest = data.searched.embeddings.labels[data.neighbours.ids[:, 0]]
    confused = confusion(query_labels, nearest, ~mrr.isnan())
    hit = (nearest == query_labels).double().masked_fill(mrr.isnan(), float("nan"))  # whatever run.k asks for
    scores = class_scores({**report.per_query, "recall@1": hit}, query_labels, [f"ndcg@{data.k}", "recall@1"])
    tables = measure_tables(report)
    rows = [row["measure"] for row in tables[0]["rows"]]

    def src(split: str, row: int) -> str:
        return inline(cells[split, row]) if (split, row) in cells else ""

    show = partial(query_gallery, data, src=src, labels=labels)
    kept = data.results.get("epoch")
    drawn_curves = curves(data.results)
    of_classes = class_data(scores, confused, labels, data.k)
    content = {
        "title": _title(data.run.resolve()),
        "lead": f"{data.trained.parts.split.name}, {data.split} classes {seen(data).partition(':')[0]}; "
        f"{data.trained.config.loss.name} on {data.trained.config.model.backbone}",
        "version": __version__,
        "date": date.today().isoformat(),
        "parts": _SECTIONS,
        "headline": [measure for measure in rows if measure.name in (*_HEADLINE, f"ndcg@{data.k}")],
        "notes": data.notes,
        "facts": run_facts(data),
        "queries": f"{report.queries:,}",
        "resamples": resamples_for(report.queries),
        "measures": tables,
        "curves": [curve | {"words": _in_words(curve)} for curve in drawn_curves],
        "chosen_epoch": kept,
        "chosen_by": data.results.get("chosen_by"),
        "shown_hits": data.neighbours.ids.shape[1],
        "k": data.k,
        "galleries": [
            show(title, about, shown)
            for title, about, shown in (("Worst", _WORST, worst_queries), ("Typical", _TYPICAL, typical_queries))
            if shown
        ],
        "map": map_section(drawn, labels, [view.name for view in projections], projections[0].about),
        "classes": class_tables(data, scores, chosen, labels),
        "confusion": confusion_tables(confused, chosen, labels),
        "centres": centres_section(data, studied, src, labels),
        "config": dump_config(data.trained.config),
        "environment": environment(data.results),
        "here": this_environment(),
        "formulas": formulas(data.trained.config.loss.name),
        "paper": PAPER,
        "figures": {
            "templates": templates(),
            "map": map_data(data, drawn, projections, labels),
            "classes": of_classes,
            "class_figure": class_figure(of_classes, data.k),
            "curves": [curve_figure(curve, kept) for curve in drawn_curves],
        },
    }
    of_map = [(layer.source.split, row) for layer in drawn if layer.source is not None for row in layer.rows.tolist()]
    return Gathered(content, [cells[place] for place in of_map] if cells else [], count, tuple(rows))


def _with_thumbnail(
    data: ReportData, drawn: Sequence[Layer], queries: Sequence[Shown], studied: Centres | None
) -> list[Any]:
    """The items of the map, of the galleries and of the centres, as parts and rows."""
    places: list[Any] = [(layer.source, layer.rows.tolist()) for layer in drawn if layer.source is not None]
    places.append((data.queries, [query.row for query in queries]))
    places.append((data.searched, [hit.row for query in queries for hit in query.hits]))
    if studied is not None and data.training is not None:
        nearest = [row for centres in studied.rows.values() for near in centres.values() for row in near]
        places.append((data.training, nearest))
    return places


def _title(run: Path) -> str:
    """The folder's name, or that of the folder around it where it is just ``run``."""
    return run.parent.name if run.name == "run" else run.name


def _in_words(curve: Mapping[str, Any]) -> str:
    """A curve for those who do not see it."""
    ends = []
    for name, values in curve["lines"].items():
        known = [value for value in values if value is not None]
        ends.append(f"{name} from {known[0]:.4g} to {known[-1]:.4g}")
    return ", ".join(ends)


def measure_tables(report: RetrievalReport) -> list[dict[str, Any]]:
    """The measures by class, and by known finer classes where there are some."""
    tables = []
    for title, part in (("", report), ("Judged by the known finer classes", report.sub)):
        if part is not None:
            listed = measures(part)
            rows = [_measure_row(measure, before) for measure, before in zip(listed, [None, *listed], strict=False)]
            undefined = any(measure.undefined for measure in listed)
            tables.append({"title": title, "rows": rows, "undefined": undefined})
    return tables


def _measure_row(measure: Measure, before: Measure | None) -> dict[str, Any]:
    first = before is not None and _cutoff(measure.name) != _cutoff(before.name)
    bars = [
        {"kind": kind, "low": round(100 * ends.low, 2), "width": round(max(100 * (ends.high - ends.low), 0.2), 2)}
        for kind, ends in (("classes", measure.over_classes), ("queries", measure.over_queries))
        if ends is not None and ends.low == ends.low
    ]
    if measure.over_queries is not None:
        bars.append({"kind": "mean", "low": round(100 * measure.over_queries.mean, 2), "width": 0.3})
    return {"measure": measure, "first": first, "bars": bars}


def _cutoff(name: str) -> str:
    k = name.partition("@")[2]
    return k if k.isdigit() else ""


def query_gallery(
    data: ReportData, title: str, about: str, queries: Sequence[Shown], src: Picture, labels: Labels
) -> dict[str, Any]:
    """Queries with their nearest neighbours."""
    gallery = data.searched

    def item(rows: Any, row: int) -> dict[str, Any]:
        class_name = labels[int(rows.embeddings.labels[row])]
        return {"src": src(rows.split, row), "name": rows.items.name(row), "class_name": class_name}

    shown = [
        item(data.queries, query.row)
        | {"ndcg": query.ndcg, "first_right": query.first_right}
        | {"hits": [item(gallery, hit.row) | {"right": hit.right, "similarity": hit.similarity} for hit in query.hits]}
        for query in queries
    ]
    return {"title": title, "about": about, "queries": shown}


def class_tables(
    data: ReportData, scores: Sequence[ClassScore], chosen: Sequence[int], labels: Labels
) -> dict[str, Any]:
    """All classes if they are few; else the chosen ones, the worst and the best."""
    ndcg, position = f"ndcg@{data.k}", {class_id: place for place, class_id in enumerate(labels)}

    def row(score: ClassScore) -> dict[str, Any]:
        values, of = data.ndcg, data.queries.embeddings.labels
        return {
            "name": labels[score.class_id],
            "place": position[score.class_id],
            "queries": score.queries,
            "undefined": score.undefined,
            "ndcg": score.means[ndcg],
            "interval": interval_of(values, of, score.class_id) if score.queries else None,
            "recall": score.means["recall@1"],
        }

    many = len(scores) > 2 * ENDS
    if many:
        lowest, highest = extremes(scores, ndcg, ENDS)
        named = [score for score in scores if score.class_id in chosen]
        tables = {"Chosen classes": named} if named else {}
        tables |= {"Worst classes": lowest, "Best classes": highest}
    else:
        ranked = sorted(scores, key=lambda score: (score.queries == 0, score.means[ndcg], score.class_id))
        tables = {"All classes, worst first": ranked}
    empty = [labels[score.class_id] for score in scores if not score.queries]
    return {
        "tables": [{"title": title, "rows": list(map(row, listed))} for title, listed in tables.items()],
        "count": len(scores) - len(empty),
        "many": many,
        "empty": _are(empty) if empty else "",
    }


def _are(names: Sequence[str]) -> str:
    """``is a``, ``are a, b``, ``are a, b, ... and 6 others``: the end of a sentence."""
    more = f" and {len(names) - MATRIX:,} others" if len(names) > MATRIX else ""
    return f"{'is' if len(names) == 1 else 'are'} {', '.join(names[:MATRIX])}{more}"


def confusion_tables(confused: Confusion, chosen: Sequence[int], labels: Labels) -> dict[str, Any]:
    """The strongest confusions, and a table of few classes."""
    wrong = sum(a != b for a, counts in confused.counts.items() for b in counts)
    position = {class_id: place for place, class_id in enumerate(labels)}
    pairs = [
        {
            "asked": labels[a],
            "found": labels[b],
            "share": share,
            "count": count,
            "of": confused.queries[a],
            "places": [position[a], position[b]],
        }
        for a, b, count, share in strongest(confused, PAIRS)
    ]
    listed = shown_classes(confused, chosen, MATRIX)
    rows = []
    for own, a in enumerate(listed):
        shares = [confused.share(a, b) for b in listed]
        rest = confused.queries[a] - sum(confused.counts[a].get(b, 0) for b in listed)
        rows.append({"name": labels[a], "own": own, "shares": shares, "rest": rest / confused.queries[a]})
    return {"strongest": pairs, "rows": rows, "pairs": wrong, "all": not any(row["rest"] for row in rows)}


def map_section(drawn: Sequence[Layer], labels: Labels, names: Sequence[str], about: str) -> dict[str, Any]:
    """The map's controls, and which items it leaves out."""
    thinned = [
        f"{len(layer.rows):,} of {layer.total:,} {KINDS[layer.kind]}"
        for layer in drawn
        if len(layer.rows) < layer.total
    ]
    with_point = {int(class_id) for layer in drawn for class_id in layer.labels.unique()}
    words = f"Every item as a point, near to those that the model finds alike; {len(labels):,} classes."
    if thinned:
        words += f" Drawn are {', '.join(thinned)}, an even choice from each class."
    if missing := [name for class_id, name in labels.items() if class_id not in with_point]:
        words += f" Without a point {_are(missing)}."
    if {"proxy", "training"} <= {layer.kind for layer in drawn}:
        words += (
            " Proxies (diamonds) stand for the classes that trained; the items of those classes can be switched on."
        )
    controls = [
        {"kind": layer.kind, "name": KINDS[layer.kind], "words": f"{len(layer.rows):,}", "on": layer.kind != "training"}
        for layer in drawn
    ]
    class_names = list(labels.values())
    return {"about": words, "view_about": about, "layers": controls, "class_names": class_names, "views": names}


def centres_section(data: ReportData, studied: Centres | None, src: Picture, labels: Labels) -> dict[str, Any]:
    """The local centres of a few classes, or why there are none."""
    if studied is None:
        name = data.trained.config.loss.name
        none = f"The loss of this run, {name}, has no proxies: there are no local centres to look at."
        return {"missing": none if data.proxies is None else "Not asked for (--centres 0)."}
    count = len(studied.shown[0].counts) if studied.shown else 0
    about = (
        f"Each of the {studied.classes:,} classes that trained has {count} proxies"
        if count > 1
        else f"Each of the {studied.classes:,} classes that trained has one proxy, and so one local centre"
    )
    means = {
        "centres nearest to some item": f"{studied.means['in_use']:.2f} of {count}",
        "effective number, nearest centre": f"{studied.means['effective_hard']:.2f}",
        "the same, merged centres as one": f"{studied.means['effective_distinct']:.2f}",
        "effective number, soft usage": f"{studied.means['effective_soft']:.2f}",
        "angle between two centres": f"{studied.means['spread']:.1f}°",
    }
    return {
        "missing": "",
        "about": f"{about}. Shown are the items of some classes, each under the proxy of its class that is nearest to "
        "it, nearest first. Means over all classes that trained:",
        "means": means if count > 1 else {},
        "shown": [_centre_class(data, studied, shown, src, labels) for shown in studied.shown],
    }


def _centre_class(
    data: ReportData, studied: Centres, shown: ClassCentres, src: Picture, labels: Labels
) -> dict[str, Any]:
    training = data.training
    assert training is not None  # the centres were studied on it
    merged = {number: [other for other in group if other != number] for group in shown.merged for number in group}
    centres = [
        {
            "number": number,
            "count": shown.counts[number],
            "usage": shown.usage[number],
            "merged": ", ".join(map(str, merged.get(number, []))),
            "near": [{"src": src(training.split, row), "name": training.items.name(row)} for row in rows],
        }
        for number, rows in studied.rows[shown.class_id].items()
    ]
    idle = len(shown.counts) - shown.in_use
    return {
        "name": labels[shown.class_id],
        "place": list(labels).index(shown.class_id),
        "words": f"{sum(shown.counts):,} items; {shown.in_use} of {len(shown.counts)} centres in use, effective number "
        f"{shown.effective_distinct:.1f}.",
        "centres": centres,
        "idle": f"{idle} more {'centre is' if idle == 1 else 'centres are'} nearest to no item." if idle else "",
    }

"""Everything that a page shows, gathered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyanchor import __version__
from polyanchor.analysis.proxies import ClassCentres
from polyanchor.config.loading import dump_config
from polyanchor.report.data import PAPER, ReportData, environment, formulas, run_facts, seen
from polyanchor.report.map import Centres, Layer, View, layers, study_centres, views
from polyanchor.report.scores import (
    ClassScore,
    Confusion,
    Measure,
    class_scores,
    confusion,
    extremes,
    interval_of,
    label,
    measures,
    resamples_for,
    shown_classes,
    strongest,
)
from polyanchor.report.thumbnails import Place, Shown, inline, read_cells, text, typical, with_hits, worst
from polyanchor.training.summary import environment as this_environment
from polyanchor.types import Announce, Interval, RetrievalReport

ENDS = 10
"""Classes in the list of the worst, and in that of the best."""
PAIRS, MATRIX = 15, 20
"""Confusions in the list, classes in the table."""
Labels = Mapping[int, str]
Picture = Callable[[str, int], str]
"""Part and row to the address of its thumbnail; an empty text for vectors."""


def measure_tables(report: RetrievalReport) -> list[dict[str, Any]]:
    """The measures by class, and by known finer classes where there are some."""
    tables = []
    for title, one in (("", report), ("Judged by the known finer classes", report.sub)):
        if one is None:
            continue
        found = measures(one)
        rows = [_measure_row(measure, before) for measure, before in zip(found, [None, *found], strict=False)]
        tables.append({"title": title, "rows": rows, "undefined": any(measure.undefined for measure in found)})
    return tables


def _measure_row(one: Measure, before: Measure | None) -> dict[str, Any]:
    first = before is not None and _cutoff(one.name) != _cutoff(before.name)
    bars = [
        {"kind": kind, "low": round(100 * found.low, 2), "width": round(max(100 * (found.high - found.low), 0.2), 2)}
        for kind, found in (("classes", one.over_classes), ("queries", one.over_queries))
        if found is not None and found.low == found.low
    ]
    if one.over_queries is not None:
        bars.append({"kind": "mean", "low": round(100 * one.over_queries.mean, 2), "width": 0.3})
    return {"measure": one, "first": first, "bars": bars}


def _cutoff(name: str) -> str:
    k = name.partition("@")[2]
    return k if k.isdigit() else ""


def gallery(opened: ReportData, title: str, about: str, queries: Sequence[Shown], src: Picture, labels: Labels) -> Any:
    """Some queries with what they found."""
    asked, searched = opened.queries, opened.searched
    shown = []
    for one in queries:
        hits = [
            {
                "src": src(searched.split, hit.row),
                "name": searched.items.name(hit.row),
                "class_name": labels[int(searched.embeddings.labels[hit.row])],
                "right": hit.right,
                "similarity": hit.similarity,
            }
            for hit in one.hits
        ]
        shown.append(
            {
                "src": src(asked.split, one.row),
                "name": asked.items.name(one.row),
                "class_name": labels[int(asked.embeddings.labels[one.row])],
                "ndcg": one.ndcg,
                "first_right": one.first_right,
                "hits": hits,
            }
        )
    return {"title": title, "about": about, "queries": shown}


def class_tables(
    opened: ReportData, scores: Sequence[ClassScore], chosen: Sequence[int], labels: Labels
) -> dict[str, Any]:
    """All classes if they are few; else the chosen ones, the worst and the best."""
    name, order = f"ndcg@{opened.k}", list(labels)

    def rows(found: Sequence[ClassScore]) -> list[dict[str, Any]]:
        return [_class_row(opened, one, labels[one.class_id], order.index(one.class_id)) for one in found]

    if len(scores) <= 2 * ENDS:
        ranked = sorted(scores, key=lambda one: (one.queries == 0, one.means[name], one.class_id))
        tables = [("All classes, worst first", ranked)]
    else:
        worst, best = extremes(scores, name, ENDS)
        tables = [("Worst classes", worst), ("Best classes", best)]
        named = [one for one in scores if one.class_id in chosen]
        tables = ([("Chosen classes", named)] if named else []) + tables
    made = [{"title": title, "rows": rows(found)} for title, found in tables]
    empty = [labels[one.class_id] for one in scores if not one.queries]
    return {
        "tables": made,
        "count": len(scores) - len(empty),
        "many": len(scores) > 2 * ENDS,
        "empty": _are(empty) if empty else "",
    }


def _are(names: Sequence[str]) -> str:
    """Names as the end of a sentence.

    Example:
        ('is a', 'are a, b', 's, t and 6 others')
        ("is a", "are a, b", "s, t and 6 others")
    """
    more = f" and {len(names) - MATRIX:,} others" if len(names) > MATRIX else ""
    return f"{'is' if len(names) == 1 else 'are'} {', '.join(names[:MATRIX])}{more}"


def _class_row(opened: ReportData, one: ClassScore, name: str, place: int) -> dict[str, Any]:
    found: Interval | None = None
    if one.queries:
        found = interval_of(opened.ndcg, opened.queries.embeddings.labels, one.class_id)
    return {
        "name": name,
        "place": place,
        "queries": one.queries,
        "undefined": one.undefined,
        "ndcg": one.means[f"ndcg@{opened.k}"],
        "interval": found,
        "recall": one.means["recall@1"],
    }


def confusion_tables(found: Confusion, chosen: Sequence[int], labels: Labels) -> dict[str, Any]:
    """The strongest confusions, and a table of few classes."""
    wrong = sum(a != b for a, counts in found.counts.items() for b in counts)
    order = {number: place for place, number in enumerate(labels)}
    pairs = [
        {
            "asked": labels[a],
            "found": labels[b],
            "share": share,
            "count": count,
            "of": found.queries[a],
            "places": [order[a], order[b]],
        }
        for a, b, count, share in strongest(found, PAIRS)
    ]
    listed = shown_classes(found, chosen, MATRIX)
    rows = []
    for own, a in enumerate(listed):
        shares = [found.share(a, b) for b in listed]
        rest = found.queries[a] - sum(found.counts[a].get(b, 0) for b in listed)
        rows.append({"name": labels[a], "own": own, "shares": shares, "rest": rest / found.queries[a]})
    return {"strongest": pairs, "rows": rows, "pairs": wrong, "all": not any(row["rest"] for row in rows)}


def map_section(found: Sequence[Layer], labels: Labels, names: Sequence[str], about: str) -> dict[str, Any]:
    """Controls of the map and what it leaves out."""
    left_out = [
        f"{len(layer.rows):,} of {layer.total:,} {KINDS[layer.kind]}"
        for layer in found
        if len(layer.rows) < layer.total
    ]
    drawn = {int(number) for layer in found for number in layer.labels.unique()}
    said = f"Every item as a point, near to those that the model finds alike; {len(labels):,} classes."
    if left_out:
        said += f" Drawn are {', '.join(left_out)}, an even choice from each class."
    if missing := [name for number, name in labels.items() if number not in drawn]:
        said += f" Without a point {_are(missing)}."
    kinds = {layer.kind for layer in found}
    if {"proxy", "training"} <= kinds:
        said += " Proxies (diamonds) stand for the classes that trained; the items of those classes can be switched on."
    layers = [
        {"kind": one.kind, "name": KINDS[one.kind], "words": f"{len(one.rows):,}", "on": one.kind != "training"}
        for one in found
    ]
    return {"about": said, "view_about": about, "layers": layers, "class_names": list(labels.values()), "views": names}


def centres_section(opened: ReportData, found: Centres | None, src: Picture, labels: Labels) -> dict[str, Any]:
    """The local centres of some classes, or why there are none."""
    if found is None:
        name = opened.trained.config.loss.name
        none = f"The loss of this run, {name}, has no proxies: there are no local centres to look at."
        return {"missing": none if opened.proxies is None else "Not asked for (--centres 0)."}
    count = len(found.shown[0].counts) if found.shown else 0
    about = (
        f"Each of the {found.classes:,} classes that trained has {count} proxies"
        if count > 1
        else f"Each of the {found.classes:,} classes that trained has one proxy, and so one local centre"
    )
    means = {
        "centres nearest to some item": f"{found.means['in_use']:.2f} of {count}",
        "effective number, nearest centre": f"{found.means['effective_hard']:.2f}",
        "the same, merged centres as one": f"{found.means['effective_distinct']:.2f}",
        "effective number, soft usage": f"{found.means['effective_soft']:.2f}",
        "angle between two centres": f"{found.means['spread']:.1f}°",
    }
    return {
        "missing": "",
        "about": f"{about}. Shown are the items of some classes, each under the proxy of its class that is nearest to "
        "it, nearest first. Means over all classes that trained:",
        "means": means if count > 1 else {},
        "shown": [_centre_class(opened, found, one, src, labels) for one in found.shown],
    }


def _centre_class(
    opened: ReportData, found: Centres, one: ClassCentres, src: Picture, labels: Labels
) -> dict[str, Any]:
    training = opened.training
    assert training is not None  # what the centres were studied on
    merged = {number: [other for other in group if other != number] for group in one.merged for number in group}
    centres = [
        {
            "number": number,
            "count": one.counts[number],
            "usage": one.usage[number],
            "merged": ", ".join(map(str, merged.get(number, []))),
            "near": [{"src": src(training.split, row), "name": training.items.name(row)} for row in rows],
        }
        for number, rows in found.rows[one.class_id].items()
    ]
    idle = len(one.counts) - one.in_use
    return {
        "name": labels[one.class_id],
        "place": list(labels).index(one.class_id),
        "words": f"{sum(one.counts):,} items; {one.in_use} of {len(one.counts)} centres in use, effective number "
        f"{one.effective_distinct:.1f}.",
        "centres": centres,
        "idle": f"{idle} more {'centre is' if idle == 1 else 'centres are'} nearest to no item." if idle else "",
    }


KINDS = {"query": "queries", "gallery": "gallery items", "training": "training items", "proxy": "proxies"}
_FULL, _NONE = 250, 255
"""A value from 0 to 1 is a byte from 0 to 250; 255 stands for none."""
_EXTENT = 32_000
_CONFUSED = 3


def class_labels(opened: ReportData, numbers: Sequence[int]) -> dict[int, str]:
    """Class id -> what the page calls it; ids are added where two classes have one name.

    Args:
        opened: the run.
        numbers: class ids.
    """
    names = {number: opened.class_name(number) for number in numbers}
    times = Counter(names.values())
    return {number: f"{name} ({number})" if times[name] > 1 else name for number, name in names.items()}


def map_data(
    opened: ReportData, found: Sequence[Layer], projected: Sequence[View], labels: Mapping[int, str]
) -> dict[str, Any]:
    """Places, classes and names of all points.

    Args:
        opened: the run.
        found: the layers.
        projected: projections of their points, one layer after the other.
        labels: class id -> name, of all classes.

    Returns:
        Numbers as little-endian bytes in base64: ``classes`` int32, ``ndcg`` and ``kinds`` uint8, ``x`` and ``y`` of a
        view int16. The proxies come last.
    """
    order = {number: place for place, number in enumerate(labels)}
    numbers = torch.tensor([order[number] for layer in found for number in layer.labels.tolist()])
    kinds = [place for place, layer in enumerate(found) for _ in layer.rows]
    return {
        "layers": [
            {"kind": layer.kind, "name": KINDS[layer.kind], "shown": len(layer.rows), "total": layer.total}
            for layer in found
        ],
        "kinds": text(bytes(kinds)),
        "classes": _numbers(numbers, torch.int32),
        "ndcg": text(bytes(_bytes(opened, found))),
        "names": [name for layer in found for name in _names(layer)],
        "views": [
            {"name": view.name, "about": view.about} | dict(zip("xy", _places(view.places), strict=True))
            for view in projected
        ],
        "pictures": sum(len(layer.rows) for layer in found if layer.source is not None),
        "k": opened.k,
    }


def class_data(
    scores: Sequence[ClassScore], found: Confusion, labels: Mapping[int, str], k: int
) -> list[dict[str, Any]]:
    """What the page says of a class when it is chosen, in the order of ``labels``; no measures for training classes."""
    known = {one.class_id: one for one in scores}
    said = []
    for number, name in labels.items():
        one: dict[str, Any] = {"name": name}
        score = known.get(number)
        if score is not None:
            one |= {"queries": score.queries, "undefined": score.undefined}
            if score.queries:
                wrong = [[labels[b], share] for b, share in found.of(number)[:_CONFUSED]]
                one |= {"ndcg": score.means[f"ndcg@{k}"], "recall": score.means["recall@1"], "confused": wrong}
        said.append(one)
    return said


def _names(layer: Layer) -> list[str]:
    if layer.source is None:
        return [f"proxy {number}" for number in layer.rows.tolist()]
    return [layer.source.items.name(row) for row in layer.rows.tolist()]


def _bytes(opened: ReportData, found: Sequence[Layer]) -> list[int]:
    values: list[int] = []
    for layer in found:
        if layer.kind == "query":
            ndcg = opened.ndcg[layer.rows.to(opened.ndcg.device)].cpu()
            values += (ndcg * _FULL).round().nan_to_num(_NONE).int().tolist()
        else:
            values += [_NONE] * len(layer.rows)
    return values


def _places(places: Tensor) -> tuple[str, str]:
    """Both coordinates in one scale, so that angles stay: the larger of the two fills the range."""
    middle = (places.amax(dim=0) + places.amin(dim=0)) / 2
    reach = (places - middle).abs().max().clamp_min(1e-12)
    x, y = ((places - middle) / reach * _EXTENT).round().unbind(dim=1)
    return _numbers(x, torch.int16), _numbers(y, torch.int16)


def _numbers(values: Tensor, dtype: torch.dtype) -> str:
    kind = {torch.int32: "<i4", torch.int16: "<i2"}[dtype]
    return text(values.to(dtype).numpy().astype(kind).tobytes())


def curves(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures that the rows of ``results.json`` allow: loss, measures on held-out classes, the proxies.

    Args:
        results: what ``results.json`` holds; runs of former versions have no rows.

    Returns:
        For each figure ``title``, ``y`` (what its axis says) and ``lines``, each with ``name`` and ``values``, one an
        epoch, None where there is none.

    Example:
        >>> [one["title"] for one in curves({"epochs": [{"loss": 2.0, "proxy_turn": 3.0}]})]
        ['Training loss', 'How far the proxies turned']
    """
    rows: Sequence[Mapping[str, float]] = results.get("epochs") or []
    names = list(dict.fromkeys(name for row in rows for name in row))
    held = [name for name in names if name.startswith("val/")]
    wanted = [
        ("Training loss", "mean over the steps", {"loss": "loss"}),
        ("Held-out training classes", "measure", {name: label(name[4:]) for name in _few(held)}),
        ("How far the proxies turned", "degrees in the epoch", {"proxy_turn": "median angle"}),
        ("Length of the proxies", "length at the end", {"proxy_length": "median length"}),
    ]
    figures = []
    for title, axis, lines in wanted:
        known = {name: words for name, words in lines.items() if any(row.get(name) is not None for row in rows)}
        if title.startswith("Length") and _constant([row.get("proxy_length") for row in rows]):
            continue  # held fixed: a flat line says nothing
        if known:
            drawn = [{"name": words, "values": [row.get(name) for row in rows]} for name, words in known.items()]
            figures.append({"title": title, "y": axis, "lines": drawn})
    return figures


def _few(held: Sequence[str]) -> list[str]:
    """The measures without a cut-off and, of those with one, the smallest for recall and the largest for nDCG."""
    plain = [name for name in held if name.partition("@")[2] in ("", "r")]
    recall = [name for name in held if name.startswith("val/recall@")]
    ndcg = [name for name in held if name.startswith("val/ndcg@")]
    return [*sorted(recall, key=_curve_cutoff)[:1], *sorted(ndcg, key=_curve_cutoff)[-1:], *plain]


def _curve_cutoff(name: str) -> int:
    return int(name.partition("@")[2])


def _constant(values: Sequence[float | None]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and max(known) - min(known) <= 1e-3 * max(known)


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
    opened: ReportData,
    chosen: Sequence[int],
    *,
    queries: int,
    centres: int,
    points: int,
    tsne: bool,
    announce: Announce,
) -> Gathered:
    """Choose, count and place what the page shows, for :func:`polyanchor.report.write.write_report`.

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
    tables = measure_tables(report)
    rows = [row["measure"] for row in tables[0]["rows"]]

    def src(where: str, row: int) -> str:
        return inline(cells[where, row]) if (where, row) in cells else ""

    show = partial(gallery, opened, src=src, labels=labels)
    kept = opened.results.get("epoch")
    content = {
        "title": _title(opened.run.resolve()),
        "lead": f"{opened.trained.parts.split.name}, {opened.split} classes {seen(opened).partition(':')[0]}; "
        f"{opened.trained.config.loss.name} on {opened.trained.config.model.backbone}",
        "version": __version__,
        "date": date.today().isoformat(),
        "parts": _PARTS,
        "headline": [one for one in rows if one.name in (*_HEADLINE, f"ndcg@{opened.k}")],
        "notes": opened.notes,
        "facts": run_facts(opened),
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
        "map": map_section(found, labels, [one.name for one in projected], projected[0].about),
        "classes": class_tables(opened, scores, chosen, labels),
        "confusion": confusion_tables(confused, chosen, labels),
        "centres": centres_section(opened, held, src, labels),
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


def _wanted(opened: ReportData, found: Sequence[Layer], shown: Sequence[Shown], held: Centres | None) -> list[Any]:
    """What has a thumbnail: the map's items, the galleries', the centres'."""
    wanted: list[Any] = [(layer.source, layer.rows.tolist()) for layer in found if layer.source is not None]
    wanted.append((opened.queries, [one.row for one in shown]))
    wanted.append((opened.searched, [hit.row for one in shown for hit in one.hits]))
    if held is not None and opened.training is not None:
        rows = [row for centres in held.rows.values() for near in centres.values() for row in near]
        wanted.append((opened.training, rows))
    return wanted


def _of_layers(found: Sequence[Layer], cells: dict[Place, bytes]) -> list[bytes]:
    return [
        cells[layer.source.split, row] for layer in found if layer.source is not None for row in layer.rows.tolist()
    ]


def _title(run: Path) -> str:
    """The folder's name; ``run`` says nothing to who gets the page, the folder that it lies in does.

    Example:
        >>> _title(Path("demo/run")), _title(Path("runs/photos"))
        ('demo', 'photos')
    """
    return run.parent.name if run.name == "run" else run.name

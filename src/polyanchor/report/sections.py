"""What each part of the page says, as the template wants it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from polyanchor.analysis.proxies import ClassCentres
from polyanchor.report.centres import Centres
from polyanchor.report.classes import ClassScore, extremes, interval_of
from polyanchor.report.confusion import Confusion, shown_classes, strongest
from polyanchor.report.galleries import Shown
from polyanchor.report.measures import Measure, measures
from polyanchor.report.opening import Opened
from polyanchor.report.points import Layer
from polyanchor.types import Interval, RetrievalReport

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


def gallery(opened: Opened, title: str, about: str, queries: Sequence[Shown], src: Picture, labels: Labels) -> Any:
    """Some queries with what they found."""
    asked, searched = opened.queries, opened.searched
    shown = []
    for one in queries:
        hits = [
            {
                "src": src(searched.part, hit.row),
                "name": searched.items.name(hit.row),
                "class_name": labels[int(searched.embeddings.labels[hit.row])],
                "right": hit.right,
                "similarity": hit.similarity,
            }
            for hit in one.hits
        ]
        shown.append(
            {
                "src": src(asked.part, one.row),
                "name": asked.items.name(one.row),
                "class_name": labels[int(asked.embeddings.labels[one.row])],
                "ndcg": one.ndcg,
                "first_right": one.first_right,
                "hits": hits,
            }
        )
    return {"title": title, "about": about, "queries": shown}


def class_tables(opened: Opened, scores: Sequence[ClassScore], chosen: Sequence[int], labels: Labels) -> dict[str, Any]:
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


def _class_row(opened: Opened, one: ClassScore, name: str, place: int) -> dict[str, Any]:
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
    from polyanchor.report.figures import KINDS

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


def centres_section(opened: Opened, found: Centres | None, src: Picture, labels: Labels) -> dict[str, Any]:
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


def _centre_class(opened: Opened, found: Centres, one: ClassCentres, src: Picture, labels: Labels) -> dict[str, Any]:
    training = opened.training
    assert training is not None  # what the centres were studied on
    merged = {number: [other for other in group if other != number] for group in one.merged for number in group}
    centres = [
        {
            "number": number,
            "count": one.counts[number],
            "usage": one.usage[number],
            "merged": ", ".join(map(str, merged.get(number, []))),
            "near": [{"src": src(training.part, row), "name": training.items.name(row)} for row in rows],
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

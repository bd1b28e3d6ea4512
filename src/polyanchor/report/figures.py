"""The figures of the page, built as plotly figures: curves, classes, the map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import torch
from torch import Tensor

from polyanchor._optional import load
from polyanchor.report.data import ReportData
from polyanchor.report.map import Layer, View
from polyanchor.report.scores import ClassScore, Confusion, label

KINDS = {"query": "queries", "gallery": "gallery items", "training": "training items", "proxy": "proxies"}
_SYMBOLS = {"query": "circle", "gallery": "square", "training": "circle-open", "proxy": "diamond"}
_EXTENT, _MARGIN = 32_000, 2_000  # of the map's coordinates; whole numbers are shorter in the page
_CONFUSED = 3
_NAMED, _NAME_LENGTH = 25, 22  # classes whose names fit below the axis, letters of each
_WEBGL = 1_500  # points from which drawing each as an element of the page is slow

# the colours of page.css; the palettes are told apart by colour-blind readers too
_SCHEMES = {
    "light": {
        "ink": "#1d2226",
        "soft": "#59626a",
        "line": "#dfe2e0",
        "panel": "#ffffff",
        "palette": ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8200", "#7f7f7f"],
    },
    "dark": {
        "ink": "#e6e8ea",
        "soft": "#9aa4ac",
        "line": "#30363b",
        "panel": "#1c2024",
        "palette": ["#4ea3e0", "#f2b134", "#2fc29a", "#e394c3", "#9bd5f7", "#f28044", "#cbc43c", "#b4b4b4"],
    },
}


def templates() -> dict[str, Any]:
    """The look of all figures, in light and dark colours: a plotly template for each."""
    made = {}
    for name, colours in _SCHEMES.items():
        axis = {
            "gridcolor": colours["line"],
            "linecolor": colours["line"],
            "showline": True,
            "zeroline": False,
            "tickfont": {"size": 12},
            "automargin": True,
        }
        outline = {"marker": {"line": {"color": colours["ink"]}}}
        layout = {
            "colorway": colours["palette"],
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {
                "size": 13,
                "color": colours["soft"],
                "family": "system-ui, -apple-system, Roboto, Arial, sans-serif",
            },
            "margin": {"l": 52, "r": 12, "t": 12, "b": 44},
            "hoverlabel": {
                "bgcolor": colours["panel"],
                "bordercolor": colours["line"],
                "font": {"color": colours["ink"]},
            },
            "shapedefaults": {"line": {"color": colours["soft"], "width": 1, "dash": "dot"}},
            "xaxis": axis,
            "yaxis": axis,
        }
        template = load("plotly.graph_objects", "report").layout.Template(
            layout=layout, data={"scatter": [outline], "scattergl": [outline]}
        )
        made[name] = template.to_plotly_json()
    return made


def _figure(traces: Sequence[Mapping[str, Any]], **layout: Any) -> dict[str, Any]:
    """A validated figure as JSON; the page adds the template of its colour scheme."""
    figure = load("plotly.graph_objects", "report").Figure(list(traces), {"template": {}, **layout})
    return figure.to_plotly_json()


def curves(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the epochs of ``results.json`` show: loss, measures on held-out classes, the proxies.

    Returns:
        For each figure ``title``, ``y`` (title of its axis) and ``lines``: name -> a value an epoch, or None. Runs of
        former versions have no epochs, and so no figures.

    Example:
        >>> [curve["title"] for curve in curves({"epochs": [{"loss": 2.0, "proxy_turn": 3.0}]})]
        ['Training loss', 'How far the proxies turned']
    """
    rows: Sequence[Mapping[str, float]] = results.get("epochs") or []
    held_out = [name for name in dict.fromkeys(name for row in rows for name in row) if name.startswith("val/")]
    candidates = [
        ("Training loss", "mean over the steps", {"loss": "loss"}),
        ("Held-out training classes", "measure", {name: label(name[4:]) for name in _main_measures(held_out)}),
        ("How far the proxies turned", "degrees in the epoch", {"proxy_turn": "median angle"}),
        ("Length of the proxies", "length at the end", {"proxy_length": "median length"}),
    ]
    figures = []
    for title, y, names in candidates:
        lines = {words: [row.get(name) for row in rows] for name, words in names.items()}
        lines = {words: values for words, values in lines.items() if any(value is not None for value in values)}
        if lines and not ("median length" in lines and _constant(lines["median length"])):  # held fixed: says nothing
            figures.append({"title": title, "y": y, "lines": lines})
    return figures


def _main_measures(held_out: Sequence[str]) -> list[str]:
    """The measures without a cut-off and, of those with one, the smallest for recall and the largest for nDCG."""
    plain = [name for name in held_out if name.partition("@")[2] in ("", "r")]
    recall, ndcg = (
        sorted((name for name in held_out if name.startswith(f"val/{kind}@")), key=lambda name: int(name.split("@")[1]))
        for kind in ("recall", "ndcg")
    )
    return [*recall[:1], *ndcg[-1:], *plain]


def _constant(values: Sequence[float | None]) -> bool:
    known = [value for value in values if value is not None]
    return max(known) - min(known) <= 1e-3 * max(known)


def curve_figure(curve: Mapping[str, Any], kept: int | None) -> dict[str, Any]:
    """One of :func:`curves`, with a dotted line at the epoch whose weights were kept."""
    epochs = list(range(1, 1 + len(next(iter(curve["lines"].values())))))
    mode = "lines+markers" if len(epochs) < 40 else "lines"
    traces = [
        {"type": "scatter", "x": epochs, "y": values, "name": name, "mode": mode, "marker": {"size": 6}}
        for name, values in curve["lines"].items()
    ]
    several = len(traces) > 1
    return _figure(
        traces,
        shapes=[{"type": "line", "yref": "paper", "x0": kept, "x1": kept, "y0": 0, "y1": 1}] if kept else [],
        showlegend=several,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        margin={"t": 34 if several else 12},
        hovermode="x unified",
        xaxis={"title": {"text": "epoch"}, "dtick": 1 if len(epochs) <= 12 else None},
        yaxis={"title": {"text": curve["y"]}, "rangemode": "tozero"},
    )


def class_figure(classes: Sequence[Mapping[str, Any]], k: int) -> dict[str, Any] | None:
    """nDCG@k of all classes, ascending, with positions in ``classes`` as ``customdata``; None without any value."""
    ranked = sorted((row["ndcg"], place, row["name"]) for place, row in enumerate(classes) if "ndcg" in row)
    if not ranked:
        return None
    values, places, names = map(list, zip(*ranked, strict=True))
    ranks = list(range(1, 1 + len(ranked)))
    # plotly reads texts as HTML of its own
    short = [
        escape(name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…", quote=False) for name in names
    ]
    named = {"tickvals": ranks, "ticktext": short}
    trace = {
        "type": "scattergl" if len(ranked) > _WEBGL else "scatter",
        "mode": "markers",
        "x": ranks,
        "y": values,
        "text": [escape(name, quote=False) for name in names],
        "customdata": places,
        "marker": {"size": 4 if len(ranked) > 300 else 8},
        "hovertemplate": f"%{{text}}<br>nDCG@{k} %{{y:.3f}}<extra></extra>",
    }
    return _figure(
        [trace],
        xaxis=(named if len(ranked) <= _NAMED else {"title": {"text": "class, by rank"}})
        | {"showgrid": False, "range": [0.4, len(ranked) + 0.6]},
        yaxis={"title": {"text": f"nDCG@{k}"}, "range": [-0.03, 1.03]},
        hovermode="closest",
    )


def class_labels(data: ReportData, class_ids: Sequence[int]) -> dict[int, str]:
    """Class id -> its name on the page; ids are added where two classes have one name."""
    names = {class_id: data.class_name(class_id) for class_id in class_ids}
    times = Counter(names.values())
    return {class_id: f"{name} ({class_id})" if times[name] > 1 else name for class_id, name in names.items()}


def class_data(
    scores: Sequence[ClassScore], confusion: Confusion, labels: Mapping[int, str], k: int
) -> list[dict[str, Any]]:
    """What the page says about a chosen class, in the order of ``labels``; no measures for training classes."""
    score_of = {score.class_id: score for score in scores}
    rows = []
    for class_id, name in labels.items():
        row: dict[str, Any] = {"name": name}
        if (score := score_of.get(class_id)) is not None:
            row |= {"queries": score.queries, "undefined": score.undefined}
            if score.queries:
                wrong = [[labels[other], share] for other, share in confusion.of(class_id)[:_CONFUSED]]
                row |= {"ndcg": score.means[f"ndcg@{k}"], "recall": score.means["recall@1"], "confused": wrong}
        rows.append(row)
    return rows


def map_figure(layers: Sequence[Layer]) -> dict[str, Any]:
    """A trace for each layer; the page fills in the points that are switched on, and their colours."""
    edge = _EXTENT + _MARGIN
    axis = {"visible": False, "range": [-edge, edge]}
    traces: list[dict[str, Any]] = []
    for layer in layers:
        marker: dict[str, Any] = {"symbol": _SYMBOLS[layer.kind], "opacity": 0.8, "line": {"width": 0}}
        if layer.kind == "proxy":
            many = len(layer.rows) > 200
            marker |= {"opacity": 1, "size": 7 if many else 11, "line": {"width": 0.7 if many else 1.5}}
        traces.append({"type": "scattergl", "mode": "markers", "name": KINDS[layer.kind], "marker": marker})
        traces[-1] |= {"hoverinfo": "none", "showlegend": False}
    return _figure(
        traces,
        margin=dict.fromkeys("lrtb", 0),
        xaxis=axis,
        yaxis=axis | {"scaleanchor": "x"},
        hovermode="closest",
        hoverdistance=24,
    )


def map_data(
    data: ReportData, layers: Sequence[Layer], views: Sequence[View], labels: Mapping[int, str]
) -> dict[str, Any]:
    """All points of the map, one layer after the other; the proxies come last.

    Returns:
        ``figure``, its ``layers``, and lists over the points: ``classes`` (position in ``labels``), ``ndcg`` (or None),
        ``names``, and ``x`` and ``y`` of each of ``views``.
    """
    position = {class_id: place for place, class_id in enumerate(labels)}
    ndcg: list[float | None] = []
    for layer in layers:
        values = data.ndcg.cpu()[layer.rows].tolist() if layer.kind == "query" else [float("nan")] * len(layer.rows)
        ndcg += [None if value != value else round(value, 3) for value in values]
    return {
        "figure": map_figure(layers),
        "layers": [{"kind": layer.kind, "name": KINDS[layer.kind], "shown": len(layer.rows)} for layer in layers],
        "classes": [position[class_id] for layer in layers for class_id in layer.labels.tolist()],
        "ndcg": ndcg,
        "names": [name for layer in layers for name in _names(layer)],
        "views": [
            {"name": view.name, "about": view.about} | dict(zip("xy", _coordinates(view.places), strict=True))
            for view in views
        ],
        "pictures": sum(len(layer.rows) for layer in layers if layer.source is not None),
        "k": data.k,
    }


def _names(layer: Layer) -> list[str]:
    if layer.source is None:
        return [f"proxy {number}" for number in layer.rows.tolist()]
    return [layer.source.items.name(row) for row in layer.rows.tolist()]


def _coordinates(places: Tensor) -> tuple[list[int], list[int]]:
    """Whole numbers in one scale for both, so that angles stay: the larger of the two fills the range."""
    middle = (places.amax(dim=0) + places.amin(dim=0)) / 2
    reach = (places - middle).abs().max().clamp_min(1e-12)
    x, y = ((places - middle) / reach * _EXTENT).round().to(torch.int32).unbind(dim=1)
    return x.tolist(), y.tolist()

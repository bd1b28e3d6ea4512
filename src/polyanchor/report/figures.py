"""What the page's scripts draw: the map, the curves and the plot of the classes, as one value for JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from polyanchor.report.classes import ClassScore
from polyanchor.report.confusion import Confusion
from polyanchor.report.opening import Opened
from polyanchor.report.pictures import text
from polyanchor.report.points import Layer, View

KINDS = {"query": "queries", "gallery": "gallery items", "training": "training items", "proxy": "proxies"}
_FULL, _NONE = 250, 255
"""A value from 0 to 1 is a byte from 0 to 250; 255 stands for none."""
_EXTENT = 32_000
_CONFUSED = 3


def class_labels(opened: Opened, numbers: Sequence[int]) -> dict[int, str]:
    """Class id -> what the page calls it; ids are added where two classes have one name.

    Args:
        opened: the run.
        numbers: class ids.
    """
    names = {number: opened.class_name(number) for number in numbers}
    times = Counter(names.values())
    return {number: f"{name} ({number})" if times[name] > 1 else name for number, name in names.items()}


def map_data(
    opened: Opened, found: Sequence[Layer], projected: Sequence[View], labels: Mapping[int, str]
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


def _bytes(opened: Opened, found: Sequence[Layer]) -> list[int]:
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

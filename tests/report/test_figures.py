"""Numbers come out of the page as they went in."""

import json
from dataclasses import replace
from importlib import resources

import numpy as np
import torch

from polyanchor.report.figures import class_data, class_labels, map_data, templates
from polyanchor.report.map import layers, views
from polyanchor.report.scores import class_scores, confusion


def test_points(opened):
    found = layers(opened, points=100)
    projected = views(found, tsne=False)
    labels = class_labels(opened, list(range(6)))
    data = json.loads(json.dumps(map_data(opened, found, projected, labels), allow_nan=False))
    everything = torch.cat([layer.labels for layer in found]).tolist()
    assert data["classes"] == everything  # ids 0 to 5 stand at their own places
    assert [(layer["kind"], layer["shown"]) for layer in data["layers"]] == [
        ("query", 16),
        ("training", 16),
        ("proxy", 4),
    ]
    assert [trace["marker"]["symbol"] for trace in data["figure"]["data"]] == ["circle", "circle-open", "diamond"]
    x, y = (np.array(data["views"][0][name], dtype=float) for name in "xy")
    true = projected[0].places.numpy()
    assert np.corrcoef(x, true[:, 0])[0, 1] > 0.999999
    scale = np.ptp(x) / np.ptp(true[:, 0])
    assert abs(np.ptp(y) - scale * np.ptp(true[:, 1])) < 3  # one scale for both
    assert np.abs([x, y]).max() == 32_000
    assert np.allclose(data["ndcg"][:16], opened.ndcg.numpy(), atol=0.0006) and data["ndcg"][16:] == [None] * 20
    assert data["names"][:16] == list(opened.queries.embeddings.names) and data["names"][-1] == "proxy 1"
    assert data["pictures"] == 32


def test_classes_of_one_name_are_told_apart(opened):
    same = dict.fromkeys(range(6), "car")
    items = replace(opened.queries.items, class_names=same)
    assert class_labels(replace(opened, queries=replace(opened.queries, items=items)), [4, 5]) == {
        4: "car (4)",
        5: "car (5)",
    }
    assert class_labels(opened, [0, 99]) == {0: "apple", 99: "99"}


def test_what_is_said_of_a_class():
    labels, nearest = torch.tensor([3, 3, 3, 3, 5, 7]), torch.tensor([3, 5, 5, 8, 5, 3])
    per_query = {
        "ndcg@2": torch.tensor([1.0, 0.5, 0.5, 0, 1, float("nan")]),
        "recall@1": torch.tensor([1.0, 0, 0, 0, 1, float("nan")]),
    }
    scores = class_scores(per_query, labels, ["ndcg@2", "recall@1"])
    names = {3: "three", 5: "five", 7: "seven", 8: "eight"}
    said = class_data(scores, confusion(labels, nearest, labels != 7), names, 2)
    assert said[0] == {
        "name": "three",
        "queries": 4,
        "undefined": 0,
        "ndcg": 0.5,
        "recall": 0.25,
        "confused": [["five", 0.5], ["eight", 0.25]],
    }
    assert said[2:] == [{"name": "seven", "queries": 0, "undefined": 1}, {"name": "eight"}]


def test_figures_have_the_colours_of_the_page():
    style = (resources.files("polyanchor.report") / "assets" / "page.css").read_text()
    for template in templates().values():
        layout = template["layout"]
        assert f"--soft: {layout['font']['color']}" in style and f"--line: {layout['xaxis']['gridcolor']}" in style
        assert f"--panel: {layout['hoverlabel']['bgcolor']}" in style

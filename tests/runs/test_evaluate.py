"""A gallery is searched, notes are kept."""

import torch
from torch import nn

import polyanchor as pa
from polyanchor.datasets.items import Items
from polyanchor.runs.evaluate import evaluate_items


def test_vectors_with_and_without_a_gallery():
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    x, y, g, h = torch.randn(9, 4), torch.arange(9) % 3, torch.randn(12, 4), torch.arange(12) % 3
    alone = evaluate_items(model, Items(x, y), None, None, k=(1, 3), notes=("mind",))
    assert alone.means == pa.evaluate_retrieval(model(x), y, k=(1, 3)).means
    assert alone.notes == ("mind",)
    searched = evaluate_items(model, Items(x, y), Items(g, h), None, k=(1, 3))
    want = pa.evaluate_retrieval(model(x), y, gallery=model(g), gallery_labels=h, k=(1, 3))
    assert searched.means == want.means
    assert searched.gallery == 12

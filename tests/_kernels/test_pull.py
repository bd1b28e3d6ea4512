"""The pairs' cosines, sums and weights, pair by pair in Python floats."""

import math

import pytest
import torch

from polyanchor._kernels.blocks import Part
from polyanchor._kernels.options import Counts, LossOptions
from polyanchor._kernels.sweep import Pull, own_cosines
from polyanchor.functional import class_similarity, unit_rows


@pytest.mark.parametrize("anchor", ["class", "data"])
def test_sums_and_weights(anchor):
    units, proxies = unit_rows(torch.randn(6, 4, dtype=torch.float64)), torch.randn(5, 2, 4, dtype=torch.float64)
    labels = [3, 1, 3, 0, 9, 1]  # 9 is held elsewhere
    rows = torch.tensor([3, 1, 5, 0, 2])
    classes = torch.tensor(labels)[rows]
    own = own_cosines(Part(units, proxies, torch.tensor(labels)), rows, classes)
    pull = Pull(own, rows, classes, (6, 5), LossOptions(anchor=anchor, alpha=20.0))

    cosines = class_similarity(units, proxies)
    h = {i: math.exp(-20 * (float(cosines[i, c]) - 0.1)) for i, c in enumerate(labels) if c < 5}
    if anchor == "class":
        sums = [sum(h[i] for i in h if labels[i] == c) for c in range(5)]
        weights = {i: -20 / 4 * h[i] / (1 + sums[labels[i]]) for i in h}
    else:
        sums = [h.get(i, 0.0) for i in range(6)]
        weights = {i: -20 / 6 * h[i] / (1 + h[i]) for i in h}
    torch.testing.assert_close(pull.sums.exp(), torch.tensor(sums, dtype=torch.float64))
    got = pull.weights(pull.sums, Counts(6, 5, torch.tensor(4)))
    torch.testing.assert_close(got, torch.tensor([weights[i] for i in rows.tolist()], dtype=torch.float64))

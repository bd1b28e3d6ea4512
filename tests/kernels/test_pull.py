"""The pairs' exponents, read off a block or gathered: their sums and weights, pair by pair in Python floats."""

import math

import pytest
import torch

from polyanchor.functional import class_similarity, unit_rows
from polyanchor.kernels import blocks
from polyanchor.kernels.blocks import Part, Scores, cut
from polyanchor.kernels.family import Counts, Family
from polyanchor.kernels.pull import Pull


@pytest.mark.parametrize("most", [4, 10**6], ids=["gathered", "read off the block"])
@pytest.mark.parametrize("anchor", ["class", "data"])
def test_sums_and_weights(monkeypatch, most, anchor):
    for name, value in (("BLOCK_SCORES", 0), ("FEWEST_PROXIES", most), ("MOST_PROXIES", most)):
        monkeypatch.setattr(blocks, name, value)
    units, proxies = unit_rows(torch.randn(6, 4, dtype=torch.float64)), torch.randn(5, 2, 4, dtype=torch.float64)
    labels = [3, 1, 3, 0, 9, 1]  # 9 is held elsewhere
    part, family = Part(units, proxies, torch.tensor(labels)), Family(anchor=anchor, alpha=20.0)
    found, _ = cut(part)
    pull = Pull(part, family, found, Scores(found, units, unit=3.0))

    cosines = class_similarity(units, proxies)
    h = {i: math.exp(-20 * (float(cosines[i, c]) - 0.1)) for i, c in enumerate(labels) if c < 5}
    if anchor == "class":
        sums = [sum(h[i] for i in h if labels[i] == c) for c in range(5)]
        weights = {i: -20 / 4 * h[i] / (1 + sums[labels[i]]) for i in h}
    else:
        sums = [h.get(i, 0.0) for i in range(6)]
        weights = {i: -20 / 6 * h[i] / (1 + h[i]) for i in h}
    torch.testing.assert_close(pull.sums.exp(), torch.tensor(sums, dtype=torch.float64))
    got = torch.cat(pull.weights(pull.sums, Counts(6, 5, torch.tensor(4))))
    rows = [i for block in found for i in block.rows.tolist()]
    torch.testing.assert_close(got, torch.tensor([weights[i] for i in rows], dtype=torch.float64))

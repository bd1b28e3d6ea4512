"""Spread and agreement against loops and known cases."""

import itertools
import math

import numpy as np
import pytest
import torch

from polyanchor.stats.agreement import discrimination, mean_rank_agreement, pooled_deviation, rank_agreement


def test_pooled_deviation_is_that_of_the_residuals():
    values = torch.rand(4, 3, dtype=torch.float64)
    residuals = (values - values.mean(dim=1, keepdim=True)).flatten().numpy()
    assert pooled_deviation(values) == pytest.approx(math.sqrt((residuals**2).sum() / (4 * 2)))


def test_discrimination_finds_the_deviations_that_numbers_were_drawn_with():
    draws = np.random.default_rng(0)
    methods = draws.normal(0, 3.0, 4_000)
    values = torch.tensor(methods[:, None] + draws.normal(0, 2.0, (4_000, 5)))
    assert discrimination(values) == pytest.approx(1.5, rel=0.03)
    noise = torch.tensor(draws.normal(0, 2.0, (4_000, 5)))
    assert discrimination(noise) < 0.15
    assert discrimination(torch.tensor([[1.0, 1.0], [2.0, 2.0]])) == math.inf


def test_agreement_counts_pairs_in_the_same_order():
    a, b = [0.3, 0.1, 0.7, 0.5], [0.2, 0.9, 0.4, 0.6]
    signs = [np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]) for i, j in itertools.combinations(range(4), 2)]
    assert rank_agreement(a, b) == pytest.approx(np.mean(signs))
    assert rank_agreement(a, a) == 1 == -rank_agreement(a, [-v for v in a])
    three = torch.tensor([a, b, [v**2 for v in a]], dtype=torch.float64).T
    assert mean_rank_agreement(three) == pytest.approx((1 + 2 * np.mean(signs)) / 3)


def test_too_little_is_said():
    with pytest.raises(ValueError, match=r"2 or more repeats\), got \(3, 1\)"):
        discrimination(torch.ones(3, 1))
    with pytest.raises(ValueError, match="needs 2 or more, got 1"):
        discrimination(torch.ones(1, 3))

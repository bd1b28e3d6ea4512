"""Counts, and the logarithm of one plus a sum."""

import math

import torch

from polyanchor._kernels.options import Counts, LogSums, LossOptions, lse0


def test_counts_of_a_batch():
    counts = Counts.of(torch.tensor([4, 0, 4, 4, 2]), 9)
    assert (counts.items, counts.classes, int(counts.present)) == (5, 9, 3)


def test_lse0_far_below_and_far_above_zero():
    z = torch.tensor([-math.inf, -800.0, -40.0, 0.0, 25.0, 800.0], dtype=torch.float64)
    want = [0.0, 0.0, math.log1p(math.exp(-40)), math.log(2), 25 + math.log1p(math.exp(-25)), 800.0]
    torch.testing.assert_close(lse0(z), torch.tensor(want, dtype=torch.float64), rtol=1e-14, atol=0)


def test_each_term_is_a_mean_over_its_own_number():
    sums = LogSums(torch.zeros(3), torch.zeros(4))  # log(1 + 1) each
    counts = Counts(items=5, classes=7, present=torch.tensor(2))
    for anchor, pulls, pushes in (("class", 2, 7), ("data", 5, 5), ("mixed", 2, 5)):
        want = math.log(2) * (3 / pulls + 4 / pushes)
        torch.testing.assert_close(sums.loss(LossOptions(anchor=anchor), counts), torch.tensor(want))

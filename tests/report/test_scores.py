"""Intervals, beside a bootstrap in numpy."""

import numpy as np
import pytest
import torch

from polyanchor.report.scores import measures
from polyanchor.types import RetrievalReport


def report(values, labels):
    return RetrievalReport({"mrr": values}, {}, int(values.isnan().sum()), len(values), 9, labels=labels)


def test_both_intervals_are_those_of_a_plain_bootstrap():
    labels = torch.arange(8).repeat_interleave(12)
    values = (
        torch.rand(8, 1).repeat(1, 12).flatten() + 0.1 * torch.rand(96)
    ).double()  # classes differ, queries hardly
    values[:3] = float("nan")
    (found,) = measures(report(values, labels))
    rng, known = np.random.default_rng(1), values[3:].numpy()
    by_query = [rng.choice(known, len(known)).mean() for _ in range(4000)]
    groups = [values[(labels == c) & ~values.isnan()].numpy() for c in range(8)]
    by_class = [np.concatenate([groups[c] for c in rng.integers(0, 8, 8)]).mean() for _ in range(4000)]
    for ours, draws in ((found.over_queries, by_query), (found.over_classes, by_class)):
        assert ours.mean == pytest.approx(known.mean())
        spread = np.std(draws)
        assert [ours.low, ours.high] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.15 * spread)
    assert found.over_classes.high - found.over_classes.low > 2 * (found.over_queries.high - found.over_queries.low)
    assert (found.undefined, found.over_queries.n, found.over_classes.n) == (3, 93, 8)


def test_nothing_defined_is_no_number():
    (found,) = measures(report(torch.full((4,), float("nan"), dtype=torch.float64), torch.arange(4)))
    assert (found.over_queries, found.over_classes, found.undefined) == (None, None, 4)

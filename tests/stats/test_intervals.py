"""Intervals and paired tests over seeds, against scipy and against definitions."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from polyanchor.stats.intervals import holm, mean_interval, paired_t


def test_the_interval_is_scipys():
    values = [0.51, 0.55, 0.49, 0.6, 0.58]
    found = mean_interval(values, confidence=0.9)
    want = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((want.low, want.high), rel=1e-12)
    assert (found.mean, found.n) == (pytest.approx(np.mean(values)), 5)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (2_000, 5))
    inside = [found.low <= 3.0 <= found.high for found in map(mean_interval, draws.tolist())]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def test_one_run_has_no_interval():
    found = mean_interval([0.5])
    assert found.mean == 0.5 and math.isnan(found.low) and math.isnan(found.high)
    assert math.isnan(paired_t([0.5], [0.4]).p)


def test_the_paired_test_is_the_one_sample_test_of_the_differences():
    a, b = [0.53, 0.55, 0.54, 0.50], [0.50, 0.53, 0.51, 0.51]
    differences = np.subtract(a, b)
    found = paired_t(a, b)
    assert found.p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=1e-9)
    assert found.difference.mean == pytest.approx(differences.mean())
    assert paired_t(b, a).difference.mean == -found.difference.mean


def test_runs_that_agree_to_the_bit_have_no_width():
    interval = mean_interval([0.7] * 7)
    assert interval.low == interval.mean == interval.high == 0.7


def test_methods_that_agree_to_the_bit_do_not_differ():
    assert paired_t([0.5, 0.6], [0.5, 0.6]).p == 1.0
    assert math.isnan(paired_t([0.75, 0.5], [0.5, 0.25]).p)  # the same step twice: no spread to compare it with


def test_holm_is_the_closed_test_of_bonferronis():
    p = [0.01, 0.02, 0.2, 0.011, 0.9]
    want = []
    for i in range(len(p)):  # the largest Bonferroni p of any set of hypotheses that holds this one
        others = [j for j in range(len(p)) if j != i]
        sets = [(i, *more) for size in range(len(p)) for more in itertools.combinations(others, size)]
        want.append(max(min(1.0, len(some) * min(p[j] for j in some)) for some in sets))
    assert holm(p) == pytest.approx(want)


def test_holm_leaves_out_what_is_not_known():
    corrected = holm([0.01, math.nan, 0.04])
    assert corrected[0] == 0.02 and math.isnan(corrected[1]) and corrected[2] == 0.04
    assert holm([]) == []


def test_wrong_input_says_what_was_expected():
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([])
    with pytest.raises(ValueError, match="between 0 and 1"):
        mean_interval([1.0, 2.0], confidence=95)
    with pytest.raises(ValueError, match="as many values of each, got 2 and 1"):
        paired_t([1.0, 2.0], [1.0])

"""The bootstrap, against a loop over resamples, scipy and the standard error."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from polyanchor.stats.bootstrap import bootstrap_interval, paired_bootstrap, resampled_means


def test_means_of_resampled_classes_are_those_of_a_loop():
    values = torch.tensor([[1.0, 0.2], [0.0, torch.nan], [1.0, 0.4], [0.0, 0.9], [0.5, 0.1]], dtype=torch.float64)
    groups = torch.tensor([7, 7, 2, 2, 9])
    found = resampled_means(values, groups, resamples=20, seed=3)
    drawn = torch.randint(3, (20, 3), generator=torch.Generator().manual_seed(3))
    members = [[2, 3], [0, 1], [4]]  # of the classes 2, 7, 9
    for row, classes in enumerate(drawn.tolist()):
        rows = [item for number in classes for item in members[number]]
        torch.testing.assert_close(found[row], values[rows].nanmean(dim=0))


def test_the_interval_is_scipys():
    values = torch.rand(300, dtype=torch.float64) ** 3
    found = bootstrap_interval(values, resamples=20_000)
    want = stats.bootstrap((values.numpy(),), np.mean, n_resamples=20_000, method="percentile", rng=0)
    low, high = want.confidence_interval
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * (high - low))
    assert found.n == 300


def test_whole_classes_say_less_than_their_queries():
    value_of_class = torch.randn(20, dtype=torch.float64)
    classes = torch.arange(20).repeat_interleave(30)
    values = value_of_class[classes]
    alone, together = bootstrap_interval(values), bootstrap_interval(values, classes)
    assert together.mean == alone.mean and together.n == 20
    ratio = (together.high - together.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(math.sqrt(30), rel=0.15)  # 20 independent numbers, not 600


def test_p_is_about_uniform_where_nothing_differs():
    torch.manual_seed(1)
    found = paired_bootstrap(torch.randn(400, 300), torch.randn(400, 300), resamples=2_000)
    p = np.array([one.p for one in found])
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.035) and np.mean(p < 0.5) == pytest.approx(0.5, abs=0.09)


@pytest.mark.slow
def test_a_difference_is_seen_and_signed():
    first = torch.rand(500, 1)
    up, down = paired_bootstrap(first + 0.1, first)[0], paired_bootstrap(first, first + 0.1)[0]
    assert up.difference.mean == pytest.approx(0.1, abs=1e-6) == -down.difference.mean
    assert up.p == down.p < 0.001
    assert paired_bootstrap(first, first)[0].p == 1.0


def test_undefined_queries_are_left_out():
    values = torch.tensor([0.0, 1.0, torch.nan, 1.0])
    assert bootstrap_interval(values).mean == pytest.approx(2 / 3) and bootstrap_interval(values).n == 3
    assert bootstrap_interval(values, torch.tensor([0, 0, 1, 2])).n == 2


def test_one_class_has_no_interval():
    found = bootstrap_interval(torch.tensor([0.0, 1.0]), torch.tensor([4, 4]))
    assert found.mean == 0.5 and math.isnan(found.low)


def test_the_seed_decides():
    values = torch.rand(50)
    assert (
        bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    )


def test_wrong_input_says_what_was_expected(subtests):
    for call, words in (
        (lambda: bootstrap_interval(torch.tensor([torch.nan])), "at least one defined value"),
        (lambda: bootstrap_interval(torch.ones(3), torch.ones(2)), r"got \(3, 1\) and \(2,\)"),
        (lambda: bootstrap_interval(torch.ones(3), resamples=0), "resamples must be at least 1, got 0"),
        (lambda: bootstrap_interval(torch.ones(3), confidence=1.0), "between 0 and 1"),
        (lambda: paired_bootstrap(torch.ones(3, 1), torch.ones(2, 1)), "one shape"),
    ):
        with subtests.test(words), pytest.raises(ValueError, match=words):
            call()


def test_a_p_that_no_resample_contradicts_is_a_bound():
    first = torch.rand(40, 1, dtype=torch.float64)
    (found,) = paired_bootstrap(first + 1, first, resamples=500)
    assert found.p == found.resolution == 2 / 501 and found.is_bound
    assert not paired_bootstrap(first, torch.rand(40, 1), resamples=500)[0].is_bound


@pytest.mark.parametrize(("classes", "bound"), [(2, 0.5), (5, 0.0625), (8, 2**-7)])
def test_few_classes_cannot_give_a_small_p(classes, bound):
    """However far apart two methods are: the signs of so few classes agree by chance as often."""
    groups = torch.arange(classes).repeat_interleave(50)
    (found,) = paired_bootstrap(torch.rand(len(groups), 1) + 1, torch.zeros(len(groups), 1), groups)
    assert found.p == found.resolution == bound and found.is_bound


def test_where_a_conclusion_hangs_on_p_it_is_known_better():
    """Against the normal approximation, which holds for the mean of so many."""
    torch.manual_seed(0)
    noise = torch.randn(900, 3, dtype=torch.float64)
    noise = (noise - noise.mean(dim=0)) / noise.std(dim=0)
    apart = torch.tensor([2.3, 0.5, 9.0], dtype=torch.float64)  # in standard errors
    found = paired_bootstrap(noise + apart / 30, torch.zeros_like(noise))
    assert [round(2 / one.resolution) - 1 for one in found] == [100_000, 10_000, 100_000]
    assert found[0].p == pytest.approx(2 * stats.norm.sf(2.3), rel=0.1)
    assert [one.is_bound for one in found] == [False, False, True]
    assert found[2].p < 1 / 10_001

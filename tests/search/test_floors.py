import math
from dataclasses import replace
from itertools import product

import torch

from polyanchor.search import threshold_lists as module
from polyanchor.search.scores import leave_one_out
from polyanchor.search.threshold_lists import Plan, order_statistic, plan, score_thresholds


def tail(j, depth, share):
    """P(at least j of the depth items are sampled), term by term."""
    return sum(math.comb(depth, i) * share**i * (1 - share) ** (depth - i) for i in range(j, depth + 1))


def test_place_is_the_first_with_a_small_tail(subtests):
    for depth, sample in product((1, 12, 300), (256, 1024)):
        with subtests.test(depth=depth, sample=sample):
            j = order_statistic(depth, sample, 20_000)
            assert tail(j, depth, sample / 20_000) <= 2e-4 < tail(j - 1, depth, sample / 20_000)


def test_a_depth_beyond_the_sample_takes_its_last():
    assert order_statistic(5000, 256, 6000) == 256


def test_each_row_has_the_place_of_its_depth():
    depth = torch.tensor([5, 900, 5]).repeat(4000)
    chosen = plan(depth)
    assert chosen.rank[0] == chosen.rank[2] == order_statistic(5, chosen.sample, 12_000)
    assert chosen.rank[1] == order_statistic(900, chosen.sample, 12_000)
    assert chosen.longest > chosen.length > chosen.longest / 3


def test_the_lists_are_as_long_as_said_and_few_are_too_short():
    vectors = torch.randn(4000, 16, generator=torch.Generator().manual_seed(1))
    task, depth = leave_one_out(vectors), torch.full((4000,), 40)
    chosen = plan(depth)
    floor = score_thresholds(task, chosen, 1008)
    unit = torch.nn.functional.normalize(vectors.double(), dim=1)
    scores = (unit @ unit.T).fill_diagonal_(-2)
    length = (scores > floor[:, None]).sum(dim=1)
    assert chosen.length / 1.3 < length.double().mean() < chosen.length * 1.3
    assert (length < depth).double().mean() < 0.02


def test_the_row_itself_is_not_in_its_sample():
    """All rows sampled, place 1: the best score of each, which would be 1 for the row itself."""
    task = leave_one_out(torch.eye(20) + 0.1)
    everything = Plan(20, torch.ones(20, dtype=torch.long), torch.ones(20, dtype=torch.long))
    below = replace(everything, depth=torch.zeros(20, dtype=torch.long))  # a list of none is long enough
    assert (score_thresholds(task, below, 16) < 0.9).all()


def test_ties(monkeypatch):
    vectors = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    vectors[:20] = 0
    chosen = Plan(50, torch.full((100,), 10), torch.full((100,), 5))
    assert score_thresholds(leave_one_out(vectors), chosen, 16)[:20].isposinf().all()
    monkeypatch.setattr(module, "_HOPELESS", 0.1)
    assert score_thresholds(leave_one_out(vectors), chosen, 16) is None


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    task = leave_one_out(torch.randn(30, 4, generator=torch.Generator().manual_seed(0)))
    first, second = (score_thresholds(task, plan(torch.ones(30, dtype=torch.long)), 16) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, second)

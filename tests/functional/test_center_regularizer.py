"""The merging penalty against a loop, pytorch-metric-learning, finite differences, and where it has a kink."""

import itertools
import math

import pytest
import torch

from polyanchor.functional import center_regularizer


def drawn(c=3, k=4, d=6, dtype=torch.float64):
    return torch.randn(c, k, d, dtype=dtype, generator=torch.Generator().manual_seed(5))


def by_hand(proxies):
    """The formula, term by term, in Python floats."""
    total = 0.0
    for of_class in proxies.tolist():
        for p, q in itertools.combinations(of_class, 2):
            cosine = sum(a * b for a, b in zip(p, q, strict=True)) / (math.hypot(*p) * math.hypot(*q))
            total += math.sqrt(2 - 2 * cosine)
    classes, centres, _ = proxies.shape
    return total / (classes * centres * (centres - 1))


@pytest.mark.parametrize("shape", [(1, 2, 3), (3, 4, 6), (5, 10, 2)])
def test_is_the_formula(shape):
    assert center_regularizer(drawn(*shape)).item() == pytest.approx(by_hand(drawn(*shape)), rel=1e-12)


def test_is_that_of_pytorch_metric_learning_with_its_gradient():
    regularizers = pytest.importorskip("pytorch_metric_learning.regularizers", reason="extra: compare")
    theirs = regularizers.SparseCentersRegularizer(3, 4)
    ours, other = drawn().requires_grad_(), drawn().requires_grad_()
    values = center_regularizer(ours), theirs(other.view(12, 6))
    for value in values:
        value.backward()
    torch.testing.assert_close(*values, rtol=1e-5, atol=0)  # it adds a small number under its root
    torch.testing.assert_close(ours.grad, other.grad, rtol=1e-4, atol=1e-7)


def test_first_and_second_gradient():
    proxies = drawn(2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(center_regularizer, proxies)
    assert torch.autograd.gradgradcheck(center_regularizer, proxies)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_stay_bounded_where_two_centres_coincide(subtests, dtype):
    for turned in (0.0, 1e-8, 1e-5, 1e-3):
        with subtests.test(turned=turned):
            proxies = drawn(2, 3, 64).to(dtype)
            proxies[0, 1] = 3 * proxies[0, 0]
            proxies[0, 1, 0] += turned
            proxies.requires_grad_()
            value = center_regularizer(proxies)
            value.backward()
            assert value.item() == pytest.approx(by_hand(proxies), rel=1e-3)
            # Each of K - 1 = 2 partners turns a proxy with at most 1 / length; and 1 / (C K (K - 1)).
            steps = proxies.grad.norm(dim=2) * proxies.detach().norm(dim=2)
            assert steps.isfinite().all() and steps.max() <= 2.1 / 12


@pytest.mark.parametrize("place", [(1.0, 2.0, 3.0), (0.0, 1.0, 0.0)])  # cosine 1 up to rounding, and exactly 1
def test_coinciding_centres_cost_nothing_and_are_left_where_they_are(place):
    proxies = torch.tensor(place).repeat(4, 5, 1).requires_grad_()
    value = center_regularizer(proxies)
    value.backward()
    assert value == 0
    assert not proxies.grad.any()


def test_one_centre_costs_nothing_and_can_still_be_differentiated():
    proxies = drawn(k=1).requires_grad_()
    value = center_regularizer(proxies)
    value.backward()
    assert value == 0 and value.shape == ()
    assert not proxies.grad.any()


def test_length_does_not_matter_and_opposite_centres_are_the_worst():
    assert center_regularizer(drawn() * 1e-20).item() == pytest.approx(center_regularizer(drawn()).item())
    assert center_regularizer(torch.tensor([[[2.0, 0.0], [-5.0, 0.0]]])) == 1


def test_following_it_merges_the_centres():
    proxies = drawn(2, 3, 4).requires_grad_()
    optimizer = torch.optim.SGD([proxies], lr=0.05)
    for _ in range(1000):
        optimizer.zero_grad()
        center_regularizer(proxies).backward()
        optimizer.step()
    assert center_regularizer(proxies) < 0.02


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_proxies_are_widened_and_autocast_changes_nothing(dtype):
    narrow = drawn(dtype=torch.float32).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = center_regularizer(narrow)
    assert value.dtype == torch.float32
    assert value == center_regularizer(narrow.float())


def test_bad_proxies(subtests):
    for proxies, error, words in (
        (torch.ones(3, 4), ValueError, r"proxies must have shape \(C, K, D\).*got \(3, 4\)"),
        (torch.ones(3, 0, 4), ValueError, r"got \(3, 0, 4\)"),
        (torch.ones(3, 2, 4).long(), TypeError, "must be floating point, got torch.int64"),
        ([[[1.0]]], TypeError, "got list"),
    ):
        with subtests.test(words), pytest.raises(error, match=words):
            center_regularizer(proxies)

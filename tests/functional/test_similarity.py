"""Pooling against its closed forms and its limits."""

import pytest
import torch

from polyanchor.functional import class_similarity, pool, unit_rows


def test_pooling_gradient_is_the_documented_one():
    s = torch.tensor([[0.9, 0.2, -0.4]], dtype=torch.float64, requires_grad=True)
    gamma = 0.15
    pooled = pool(s, gamma=gamma)
    w = torch.softmax(s / gamma, dim=1)
    want = (w * (1 + (s - pooled) / gamma)).detach()
    torch.testing.assert_close(torch.autograd.grad(pooled, s)[0], want)


@pytest.mark.parametrize("pooling", ["softmax", "logsumexp"])
def test_a_narrow_assignment_is_the_nearest_centre(pooling):
    s = torch.randn(5, 7, 3, dtype=torch.float64)
    torch.testing.assert_close(pool(s, pooling=pooling, gamma=1e-4), s.amax(-1), atol=2e-4, rtol=0)


@pytest.mark.parametrize("pooling", ["softmax", "logsumexp"])
def test_a_wide_assignment_is_the_mean(pooling):
    s = torch.rand(5, 7, 3, dtype=torch.float64)
    torch.testing.assert_close(pool(s, pooling=pooling, gamma=1e4), s.mean(-1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("pooling", ["softmax", "max", "logsumexp"])
def test_equal_centres_and_one_centre_are_that_centre(pooling):
    s = torch.randn(4, 5, 1, dtype=torch.float64)
    assert torch.equal(pool(s, pooling=pooling), s[..., 0])
    torch.testing.assert_close(pool(s.expand(4, 5, 6), pooling=pooling), s[..., 0])


def test_class_similarity_is_the_cosine_of_torch():
    x, p = torch.randn(4, 6, dtype=torch.float64), torch.randn(3, 2, 6, dtype=torch.float64)
    want = torch.nn.functional.cosine_similarity(x[:, None, None], p[None], dim=-1).amax(-1)
    torch.testing.assert_close(class_similarity(x, p, pooling="max"), want)


def test_rows_of_any_length_keep_their_direction(subtests):
    for size in (1e-37, 1e-30, 3e-23, 1.0, 1e20, 1e38):
        with subtests.test(size=size):
            row = torch.tensor([[0.6, -0.8]]) * size
            torch.testing.assert_close(unit_rows(row), torch.tensor([[0.6, -0.8]]))


def test_unit_rows_of_zero_and_of_tiny_rows():
    x = torch.tensor([[0.0, 0.0], [3e-20, 4e-20]], dtype=torch.float64, requires_grad=True)
    out = unit_rows(x)
    torch.testing.assert_close(out[1], torch.tensor([0.6, 0.8], dtype=torch.float64))
    out[0].sum().backward()
    assert x.grad.tolist() == [[0, 0], [0, 0]]

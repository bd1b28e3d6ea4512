"""Pooling in place against the formulas of functional, and autograd's gradient of them."""

from itertools import product

import torch

from polyanchor._kernels.pooling import LOG2_E, Pool
from polyanchor.functional import pool


def test_equals_the_formula_and_its_gradient(subtests):
    for kind, shift, k in product(("softmax", "max", "logsumexp"), (False, True), (2, 3)):
        with subtests.test(kind, shift=shift, k=k):
            cosines = (2 * torch.rand(4, k, 5, dtype=torch.float64) - 1).requires_grad_()
            gamma, upstream = 0.2, torch.randn(4, 5, dtype=torch.float64)
            want = pool(cosines.movedim(1, 2), pooling=kind, gamma=gamma)
            unit = LOG2_E / gamma
            scores = cosines.detach() * unit
            working = Pool(kind, shift=shift, like=torch.empty(6, k, 5, dtype=torch.float64))
            pooled = working.forward(scores)
            torch.testing.assert_close(pooled / unit, want.detach())
            got = working.backward(scores, pooled.clone(), upstream.clone())
            torch.testing.assert_close(got, torch.autograd.grad(want, cosines, upstream)[0])


def test_equal_scores_share_the_gradient_of_the_maximum():
    working, scores = Pool("max", shift=False, like=torch.empty(1, 3, 1)), torch.tensor([[[1.0], [1.0], [0.0]]])
    assert working.backward(scores, working.forward(scores), torch.ones(1, 1)).flatten().tolist() == [0.5, 0.5, 0.0]


def test_the_shift_keeps_a_narrow_assignment_finite():
    scores = torch.tensor([[[900.0], [-900.0]]])
    assert Pool("softmax", shift=True, like=scores).forward(scores).tolist() == [[900.0]]

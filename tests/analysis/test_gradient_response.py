"""Whose gradient answers: in the plane, the Hessian of the loss for the angles; and what is known of the family."""

import math

import pytest
import torch

from polyanchor import MultiProxyAnchorLoss
from polyanchor.analysis.gradients import CosineLoss, reach, response
from polyanchor.config.schema import LOSSES
from polyanchor.losses.pml import pml_loss

LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
SAME = (LABELS[:, None] == LABELS) & ~torch.eye(8, dtype=torch.bool)
APART = LABELS[:, None] != LABELS
EVERY = torch.arange(8)


def family(anchor, dim=6, k=3):
    return MultiProxyAnchorLoss(4, dim, proxies_per_class=k, anchor=anchor, alpha=8.0, impl="eager").double()


def pml(name, dim):
    return pml_loss(name, 4, dim, **LOSSES[name](name=name).model_dump(exclude={"name"})).double()


@pytest.mark.parametrize("name", ["class", "data", "mixed", "normsoftmax", "supcon"])
def test_in_the_plane_it_is_the_hessian_for_the_angles(name):
    loss = pml(name, 2) if name in LOSSES else family(name, dim=2)
    angles = torch.rand(8, dtype=torch.float64) * 2 * math.pi

    def of_angles(theta):
        return loss(torch.stack([theta.cos(), theta.sin()], dim=1), LABELS)

    want = torch.autograd.functional.hessian(of_angles, angles).abs()
    x = torch.stack([angles.cos(), angles.sin()], dim=1)
    found = response(CosineLoss(loss), 3 * x, LABELS, EVERY, steps=1, seed=7)  # seed 0 would draw x itself
    torch.testing.assert_close(found["all"], want, rtol=1e-4, atol=1e-4 * float(want.max()))


@pytest.mark.parametrize(
    ("anchor", "pull_same", "push_same", "push_apart"),
    [("data", False, False, False), ("mixed", True, False, False), ("class", True, True, True)],
)
def test_what_is_known_of_the_family(anchor, pull_same, push_same, push_apart):
    found = response(CosineLoss(family(anchor)), torch.randn(8, 6), LABELS, EVERY)
    for part, where, answers in (
        ("pull", SAME, pull_same),
        ("pull", APART, False),
        ("push", SAME, push_same),
        ("push", APART, push_apart),
    ):
        values = found[part][where]
        assert bool((values > 1e-6).all()) if answers else torch.equal(values, torch.zeros_like(values)), (
            part,
            answers,
        )
    assert bool((found["all"].diagonal() > 1e-3).all())


def test_reach_by_hand():
    labels, movers = torch.tensor([0, 0, 1]), torch.tensor([0, 2])
    change = torch.tensor([[4.0, 3.0], [1.0, 5.0], [2.0, 8.0]])
    found = reach({"all": change, "pull": change / 2, "push": change}, labels, movers)
    # own answers 4 and 8: mean 6. Same class: 1 (one pair). Apart: 2 for the first mover, 3 and 5 for the second.
    assert found["all"].own_class == pytest.approx(1 / 6)
    assert found["all"].other_classes == pytest.approx(10 / 3 / 6)
    assert found["all"].all_own_class == pytest.approx(1 / 2 / 6)
    assert found["all"].all_other_classes == pytest.approx(10 / 2 / 6)
    assert found["pull"].other_classes == pytest.approx(10 / 3 / 12)

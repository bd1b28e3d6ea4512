"""Strength, concentration and the curves, against closed forms written out by hand."""

import math

import pytest
import torch

from polyanchor import MultiProxyAnchorLoss
from polyanchor.analysis.gradients import (
    CosineLoss,
    SimilarityGradient,
    class_strength,
    concentration,
    pull_push_curve,
    similarity_gradient,
    strength,
)
from polyanchor.config.schema import LOSSES
from polyanchor.losses.pml import pml_loss

OWN = torch.linspace(-0.2, 0.9, 12, dtype=torch.float64)
C, N = 8, 4  # classes, items of each


def pml(name, classes=C):
    return CosineLoss(pml_loss(name, classes, 6, **LOSSES[name](name=name).model_dump(exclude={"name"})))


def family(anchor, k=1, classes=C):
    return CosineLoss(MultiProxyAnchorLoss(classes, 6, proxies_per_class=k, anchor=anchor))


def by_hand(values, labels):
    eye = torch.eye(3, dtype=torch.float64)
    return SimilarityGradient(values, torch.zeros(3, 3), labels, torch.arange(3), eye, eye)


def test_strength_of_a_batch_by_hand():
    values = torch.tensor([[-3.0, 4.0, 0.0], [1.0, 0.0, 2.0], [0.0, 0.0, -5.0]], dtype=torch.float64)
    found = strength(by_hand(values, torch.tensor([0, 1, 2])))
    assert found.pull.tolist() == [9, 0, 15]
    assert found.push.tolist() == [12, 9, 0]
    # items and targets are the same unit axes and the cosines are set to 0, so nothing is radial
    torch.testing.assert_close(found.norm, 3 * torch.tensor([5.0, 5**0.5, 5.0], dtype=torch.float64))
    assert found.pull_norm.tolist() == [9, 0, 15]
    assert found.push_norm[0] == 12


def test_classes_by_hand():
    values = torch.tensor([[-3.0, 4.0, 0.0], [-1.0, 0.0, 2.0], [6.0, 0.0, -5.0]], dtype=torch.float64)
    found = class_strength(by_hand(values, torch.tensor([0, 0, 2])))
    assert found.classes.tolist() == [0, 2] and found.items.tolist() == [2, 1]
    assert found.pull.tolist() == [3 * (3 + 1) / 2, 3 * 5]
    assert found.push.tolist() == [3 * (4 + 2) / 2, 3 * 6]
    assert found.attracts.tolist() == [3 * (3 + 1), 3 * 5]  # column 0 on items 0 and 1, column 2 on item 2
    assert found.repels.tolist() == [3 * 6, 3 * 2]  # column 0 on item 2, column 2 on item 1


def test_doubling_a_batch_of_independent_items_changes_nothing():
    loss = MultiProxyAnchorLoss(3, 6, anchor="data")
    x, y = torch.randn(5, 6), torch.tensor([0, 0, 1, 2, 2])
    once, twice = (strength(similarity_gradient(loss, x.repeat(n, 1), y.repeat(n))) for n in (1, 2))
    for name in ("pull", "push", "norm", "pull_norm", "push_norm"):
        torch.testing.assert_close(getattr(twice, name), getattr(once, name).repeat(2))


def test_concentration_by_hand():
    values = torch.tensor([[-1.0, 2.0, 2.0], [-1.0, 4.0, 0.0], [0.0, 0.0, -0.0]], dtype=torch.float64)
    found = concentration(by_hand(values, torch.tensor([0, 0, 2])))
    assert found.items.tolist() == [2, 1]
    assert float(found.pull_items[0]) == pytest.approx(2)
    assert found.pull_items[1].isnan()
    assert found.push_classes[:2].tolist() == pytest.approx([2, 1])
    assert found.push_classes[2].isnan()
    assert found.others.tolist() == [2, 2, 2]
    uneven = torch.tensor([[-3.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]], dtype=torch.float64)
    want = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert float(concentration(by_hand(uneven, torch.tensor([0, 0, 2]))).pull_items[0]) == pytest.approx(want)


def test_a_class_anchored_pull_goes_to_the_hardest_item():
    proxies = torch.eye(4)[:, None]
    x = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.9, 0.0, 0.0, 0.44], [0.9, 0.0, 0.0, 0.44]])  # one far away, two at home
    numbers = {}
    for anchor in ("class", "data"):
        loss = MultiProxyAnchorLoss(4, 4, proxies_per_class=1, anchor=anchor)
        with torch.no_grad():
            loss.proxies.copy_(proxies)
        numbers[anchor] = float(concentration(similarity_gradient(loss, x, torch.zeros(3, dtype=int))).pull_items[0])
    assert numbers["class"] == pytest.approx(1, abs=1e-3)
    assert numbers["data"] == pytest.approx(1, abs=1e-3)  # the two at home are beyond the margin in both


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("anchor", ["class", "data", "mixed"])
def test_the_familys_curves_are_the_closed_form(anchor, k):
    curve = pull_push_curve(family(anchor, k), OWN, classes=C, per_class=N)
    for t, pull, push in zip(OWN.tolist(), curve.pull, curve.push, strict=True):
        h = math.exp(-32 * (t - 0.1))
        assert pull == pytest.approx(32 * h / (1 + h) if anchor == "data" else 32 * N * h / (1 + N * h))
        h, rivals = math.exp(32 * 0.1), N * (C - 1) if anchor == "class" else C - 1
        assert push == pytest.approx(32 * rivals * h / (1 + rivals * h))
    assert max(curve.push) - min(curve.push) < 1e-9  # satisfied or not, the push stays


@pytest.mark.parametrize(("name", "scale"), [("normsoftmax", 1 / 0.05), ("proxy-nca", 2 * 3.0), ("softtriple", 20.0)])
def test_softmax_type_losses_switch_the_push_off_with_the_pull(name, scale):
    curve = pull_push_curve(pml(name), OWN, classes=C, per_class=N)
    margin = 0.01 if name == "softtriple" else 0.0
    for t, pull, push in zip(OWN.tolist(), curve.pull, curve.push, strict=True):
        left = (C - 1) / (C - 1 + math.exp(scale * (t - margin)))
        assert pull == pytest.approx(scale * left, rel=1e-6)
        assert push == pytest.approx(scale * left, rel=1e-6)


def test_classes_that_are_not_in_the_batch_push_too():
    t, h = 0.5, math.exp(32 * 0.1)
    curve = pull_push_curve(family("class", classes=20), torch.tensor([t]), classes=C, per_class=N)
    present, absent = N * (C - 1), N * C
    want = 32 * (C * present * h / (1 + present * h) + 12 * absent * h / (1 + absent * h)) / 20
    assert curve.push[0] == pytest.approx(want)


def test_contrastive_between_items():
    loss = pml("contrastive")  # positives: the mean distance; negatives at cosine 0 are beyond the margin
    curve = pull_push_curve(loss, torch.tensor([0.0, 0.5]), classes=C, per_class=N)
    # mean over ordered pairs of d = sqrt(2 - 2 s); times B, and each item has a part in both orders of its pairs
    assert curve.pull == pytest.approx([2 / math.sqrt(2), 2 / math.sqrt(1)])
    assert curve.push == (0, 0)


@pytest.mark.parametrize("wrong", [{"classes": 1}, {"per_class": 1}])
def test_a_curve_needs_two_of_each(wrong):
    with pytest.raises(ValueError, match="must be at least 2, got 1"):
        pull_push_curve(family("data"), OWN, **wrong)

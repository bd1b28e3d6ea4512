"""The gradient for cosines: put together again it is autograd's gradient for the embeddings, whatever the loss."""

import math

import pytest
import torch
from torch import nn

from polyanchor import MultiProxyAnchorLoss
from polyanchor.analysis.gradients import CosineLoss, similarity_gradient
from polyanchor.config.schema import LOSSES
from polyanchor.functional import anchor_loss, class_similarity
from polyanchor.losses.pml import BASELINES, PmlLoss, pml_loss

LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 4, 4, 4])
FAMILY = [
    (anchor, k, pooling) for anchor in ("class", "data", "mixed") for k, pooling in ((1, "softmax"), (3, "softmax"))
]
FAMILY += [("class", 3, "max"), ("mixed", 3, "logsumexp")]


def pml(name):
    return pml_loss(name, 6, 8, **LOSSES[name](name=name).model_dump(exclude={"name"}))


def family(anchor, k, pooling="softmax", **options):
    return MultiProxyAnchorLoss(6, 8, proxies_per_class=k, anchor=anchor, pooling=pooling, impl="eager", **options)


def check_against_autograd(loss):
    x = torch.randn(12, 8, dtype=torch.float64) * torch.rand(12, 1, dtype=torch.float64).add(0.5)
    with torch.no_grad():
        x[:, 0] += 0.7 * LABELS  # something between chance and trained
    x.requires_grad_()
    (want,) = torch.autograd.grad(loss.double()(x, LABELS), x)
    found = similarity_gradient(loss, x, LABELS)
    assert want.norm(dim=1).max() > 1e-3
    torch.testing.assert_close(found.vectors() / x.detach().norm(dim=1, keepdim=True), want, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found.vectors("pull") + found.vectors("push"), found.vectors())
    return found


@pytest.mark.parametrize("name", BASELINES)
def test_put_together_it_is_autograds_gradient_of_the_librarys_losses(name):
    loss = pml(name)
    found = check_against_autograd(loss)
    between = loss.proxies is None
    assert found.values.shape == (12, 12 if between else 6 * loss.proxies.shape[1])
    assert CosineLoss(loss)(found.similarity, LABELS).item() == pytest.approx(
        loss(found.directions, LABELS).item(), rel=1e-6
    )


@pytest.mark.parametrize(("anchor", "k", "pooling"), FAMILY)
def test_put_together_it_is_autograds_gradient_of_the_family(anchor, k, pooling):
    loss = family(anchor, k, pooling, center_reg=0.3)
    found = check_against_autograd(loss)
    pooled = class_similarity(found.directions, loss.proxies, pooling=pooling).detach().requires_grad_()
    (want,) = torch.autograd.grad(anchor_loss(pooled, LABELS, anchor=anchor), pooled)
    torch.testing.assert_close(found.by_class(), want)  # the weights of the pooling add up to 1


def test_class_wise_is_the_closed_form():
    s = torch.tensor([[0.3, 0.1], [0.2, 0.0], [-0.1, 0.1]], dtype=torch.float64)
    loss = CosineLoss(MultiProxyAnchorLoss(2, 4, proxies_per_class=1, anchor="class", alpha=4.0, delta=0.1))
    pulls = [math.exp(-4 * (0.3 - 0.1)), math.exp(-4 * (0.2 - 0.1)), math.exp(-4 * (0.1 - 0.1))]
    pushes = [math.exp(4 * (0.1 + 0.1)), math.exp(4 * (0.0 + 0.1)), math.exp(4 * (-0.1 + 0.1))]
    of_class_0, to_class_1 = 1 + pulls[0] + pulls[1], 1 + pushes[0] + pushes[1]
    want = [
        [-4 / 2 * pulls[0] / of_class_0, 4 / 2 * pushes[0] / to_class_1],
        [-4 / 2 * pulls[1] / of_class_0, 4 / 2 * pushes[1] / to_class_1],
        [4 / 2 * pushes[2] / (1 + pushes[2]), -4 / 2 * pulls[2] / (1 + pulls[2])],
    ]
    torch.testing.assert_close(loss.gradient(s, torch.tensor([0, 0, 1])), torch.tensor(want, dtype=torch.float64))


def test_parts_and_classes_add_up_by_hand():
    found = similarity_gradient(pml("supcon"), torch.randn(12, 8), LABELS)
    assert torch.equal(found.values, found.values.T)
    want = sum(float(found.values[4, j]) for j in range(12) if LABELS[j] == 2)
    assert float(found.by_class("push")[4, 2]) == pytest.approx(want)
    assert float(found.by_class("pull")[4, 2]) == 0
    assert found.by_class().shape == (12, 5)


def test_the_loss_is_left_as_it_is():
    loss = pml("triplet")
    x = torch.randn(12, 8)
    before = loss(x, LABELS)
    similarity_gradient(loss, x, LABELS)
    assert torch.equal(loss(x, LABELS), before)
    arc = pml("arcface")
    similarity_gradient(arc, x, LABELS)
    assert arc.proxies.dtype == torch.float32


def test_nothing_to_mine_is_no_gradient():
    found = similarity_gradient(pml("triplet"), torch.randn(3, 8), torch.tensor([0, 1, 2]))
    assert torch.equal(found.values, torch.zeros(3, 3, dtype=torch.float64))


def test_what_is_no_function_of_cosines_is_refused():
    from pytorch_metric_learning import distances, losses

    with pytest.raises(TypeError, match="got Identity"):
        CosineLoss(nn.Identity())
    with pytest.raises(ValueError, match="must normalise"):
        CosineLoss(PmlLoss(losses.TripletMarginLoss(distance=distances.LpDistance(normalize_embeddings=False))))
    with pytest.raises(ValueError, match="must be a cosine or Euclidean"):
        CosineLoss(PmlLoss(losses.TripletMarginLoss(distance=distances.LpDistance(p=1))))

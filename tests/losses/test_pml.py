"""The baselines: SoftTriple against its paper's formula, all against the library's own; the adapter's promises."""

import math

import pytest
import torch

pytest.importorskip("pytorch_metric_learning", reason="extra: compare")
from pytorch_metric_learning import losses, miners

from polyanchor import functional
from polyanchor.config.schema import LOSSES
from polyanchor.losses.pml import BASELINES, pml_loss

SOFT_TRIPLE = {"proxies_per_class": 3, "scale": 20.0, "gamma": 0.1, "margin": 0.01}


def defaults(name):
    return LOSSES[name](name=name).model_dump(exclude={"name"})


def test_soft_triple_is_its_papers_formula():
    c, k, d, la, gamma, margin, tau = 4, 3, 5, 20.0, 0.1, 0.01, 0.2
    loss = pml_loss("softtriple", c, d, center_reg=tau, **SOFT_TRIPLE)
    x, y = torch.nn.functional.normalize(torch.randn(6, d)), torch.tensor([0, 1, 2, 3, 0, 0])
    centres = loss.proxies.detach()
    total = 0.0
    for item, label in zip(x, y, strict=True):
        s = []
        for own in centres:
            cos = (own @ item) / own.norm(dim=1)
            s.append(float((torch.softmax(cos / gamma, 0) * cos).sum()))
        exponents = [la * (value - margin * (number == label)) for number, value in enumerate(s)]
        total += -exponents[label] + math.log(sum(math.exp(e) for e in exponents))
    pairs = sum(
        math.sqrt(2 - 2 * min(1.0, float(own[a] @ own[b])))
        for own in centres
        for a in range(k)
        for b in range(a + 1, k)
    )
    want = total / len(x) + tau * pairs / (c * k * (k - 1))
    assert loss(x, y).item() == pytest.approx(float(want), rel=1e-3)  # the regulariser adds 1e-5 under its root


def test_proxy_anchor_is_the_family_with_one_proxy():
    loss = pml_loss("proxy-anchor", 6, 8, alpha=20.0, delta=0.2)
    x, y = torch.randn(12, 8), torch.arange(12) % 4
    want = functional.multi_proxy_anchor_loss(x, loss.proxies, y, anchor="class", alpha=20.0, delta=0.2)
    torch.testing.assert_close(loss(x, y), want)


OWN = {  # the options written out once more, by hand
    "proxy-nca": lambda: losses.ProxyNCALoss(num_classes=6, embedding_size=8, softmax_scale=3.0),
    "normsoftmax": lambda: losses.NormalizedSoftmaxLoss(num_classes=6, embedding_size=8, temperature=0.05),
    "arcface": lambda: losses.ArcFaceLoss(num_classes=6, embedding_size=8, margin=28.6, scale=64),
    "subcenter-arcface": lambda: losses.SubCenterArcFaceLoss(
        num_classes=6, embedding_size=8, margin=28.6, scale=64, sub_centers=3
    ),
    "multi-similarity": lambda: losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5),
    "supcon": lambda: losses.SupConLoss(temperature=0.1),
    "triplet": lambda: losses.TripletMarginLoss(margin=0.2),
    "contrastive": lambda: losses.ContrastiveLoss(pos_margin=0, neg_margin=0.5),
}
MINERS = {
    "multi-similarity": lambda: miners.MultiSimilarityMiner(epsilon=0.1),
    "triplet": lambda: miners.TripletMarginMiner(margin=0.2, type_of_triplets="semihard"),
}


@pytest.mark.parametrize("name", OWN)
def test_the_configurations_defaults_are_the_librarys_loss_with_these_options(name):
    loss, own = pml_loss(name, 6, 8, **defaults(name)), OWN[name]()
    x, y = torch.randn(12, 8), torch.arange(12) % 4
    if BASELINES[name].weights:
        own.load_state_dict(loss.loss.state_dict())
    chosen = MINERS[name]()(x, y) if name in MINERS else None
    assert loss(x, y).item() == pytest.approx(own(x, y, chosen).item(), rel=1e-6)
    assert loss(x, y) > 0


@pytest.mark.parametrize("name", BASELINES)
def test_proxies_start_at_length_one_and_belong_to_their_classes(name):
    loss = pml_loss(name, 5, 8, **defaults(name))
    if not BASELINES[name].weights:
        assert loss.proxies is None and not list(loss.parameters())
        return
    assert loss.proxies.shape[::2] == (5, 8)
    torch.testing.assert_close(loss.proxies.norm(dim=-1), torch.ones(loss.proxies.shape[:2]))
    with torch.no_grad():  # an item on a proxy of its own class is cheaper than on one of another class
        assert loss(loss.proxies[2, :1], torch.tensor([2])) < loss(loss.proxies[3, :1], torch.tensor([2]))
        loss.proxies.mul_(2)  # a view: what is written arrives in the parameter
    assert float(next(iter(loss.parameters())).detach().norm()) == pytest.approx(
        2 * math.sqrt(loss.proxies[..., 0].numel())
    )


@pytest.mark.parametrize("name", BASELINES)
def test_a_batch_of_another_dtype_does_not_change_the_proxies(subtests, name):
    for dtype in (torch.float64, torch.bfloat16):
        with subtests.test(str(dtype)):
            loss = pml_loss(name, 4, 5, **defaults(name))
            x, y = (
                torch.eye(5, dtype=dtype)[[0, 1, 2, 2]].requires_grad_(),
                torch.tensor([0, 1, 2, 1], dtype=torch.int32),
            )
            loss(x, y).backward()
            assert all(weight.dtype == weight.grad.dtype == torch.float32 for weight in loss.parameters())
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert loss(torch.eye(5)[:3], torch.tensor([0, 1, 2])).dtype == torch.float32


def test_one_centre_has_no_regulariser():
    alone = pml_loss("softtriple", 4, 5, center_reg=0.2, **(SOFT_TRIPLE | {"proxies_per_class": 1}))
    assert alone(torch.eye(5)[:2], torch.tensor([0, 1])).isfinite()


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="'proxy-nca'.*got 'proxynca'"):
        pml_loss("proxynca", 4, 5)

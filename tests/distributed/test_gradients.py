"""Norms and clipping of gradients, of sharded and sampled proxies too, against torch's functions on whole ones."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from polyanchor.distributed.sharded_loss import ShardedMultiProxyAnchorLoss
from polyanchor.losses.multi_proxy_anchor import MultiProxyAnchorLoss


@pytest.fixture(autouse=True)
def _alone_in_a_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def problem(rate):
    """A network and a loss with large gradients, their optimizer, and plain copies of all gradients."""
    torch.manual_seed(0)
    if rate is None:
        loss = MultiProxyAnchorLoss(9, 4, proxies_per_class=2)
    else:
        loss = ShardedMultiProxyAnchorLoss(9, 4, proxies_per_class=2, negative_sample_rate=rate)
    model = nn.Linear(6, 4)
    optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1)
    loss(3 * model(torch.randn(5, 6)), torch.tensor([0, 3, 3, 8, 1])).backward()
    copies = [nn.Parameter(gradient.clone()) for gradient in loss.gradients(optimizer)]
    assert len(copies) == 3
    for copy in copies:
        copy.grad = copy.detach().clone()
    return optimizer, loss, copies


@pytest.mark.parametrize("rate", [None, 1.0, 0.5])
@pytest.mark.parametrize("algorithm", ["value", "norm"])
def test_as_torch_does_it_with_whole_gradients(rate, algorithm):
    optimizer, loss, copies = problem(rate)
    {"value": nn.utils.clip_grad_value_, "norm": nn.utils.clip_grad_norm_}[algorithm](copies, 0.05)
    loss.clip_gradients(optimizer, algorithm, 0.05)
    for gradient, copy in zip(loss.gradients(optimizer), copies, strict=True):
        torch.testing.assert_close(gradient, copy.grad)
        assert not torch.equal(gradient, copy)  # there was something to clip


@pytest.mark.parametrize("rate", [None, 1.0])
@pytest.mark.parametrize("order", [2.0, float("inf")])
def test_the_norm_of_all(rate, order):
    optimizer, loss, copies = problem(rate)
    want = torch.cat([copy.detach().flatten() for copy in copies]).norm(order)
    torch.testing.assert_close(loss.gradient_norm(optimizer, order), want)
    optimizer.zero_grad()
    loss.sample = None
    assert loss.gradients(optimizer) == [] and loss.gradient_norm(optimizer, order) == 0


def test_no_clipping_changes_nothing():
    optimizer, loss, copies = problem(1.0)
    loss.clip_gradients(optimizer, None, 0.05)
    assert all(torch.equal(gradient, copy) for gradient, copy in zip(loss.gradients(optimizer), copies, strict=True))

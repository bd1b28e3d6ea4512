"""Clipping of gradients of which each rank holds a part, against torch's own functions on whole ones."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from polyanchor.distributed.sharded_loss import ShardedMultiProxyAnchorLoss
from polyanchor.training.module import clip, parted, total_norm


@pytest.fixture(autouse=True)
def _alone_in_a_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def problem(share):
    """A network and a sharded loss with large gradients, their optimizer, and plain copies of all gradients."""
    torch.manual_seed(0)
    model, loss = nn.Linear(6, 4), ShardedMultiProxyAnchorLoss(9, 4, proxies_per_class=2, negative_sample_rate=share)
    optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1)
    loss(3 * model(torch.randn(5, 6)), torch.tensor([0, 3, 3, 8, 1])).backward()
    alike, parts = parted(optimizer, loss)
    assert [len(alike), len(parts)] == [2, 1]
    copies = [nn.Parameter(gradient.clone()) for gradient in (*alike, *parts)]
    for copy in copies:
        copy.grad = copy.detach().clone()
    return optimizer, loss, copies


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("how", ["value", "norm"])
def test_as_torch_does_it_with_whole_gradients(share, how):
    optimizer, loss, copies = problem(share)
    theirs = {"value": nn.utils.clip_grad_value_, "norm": nn.utils.clip_grad_norm_}[how]
    theirs(copies, 0.05)
    clip(optimizer, loss, loss.mesh, how, 0.05)
    alike, parts = parted(optimizer, loss)
    for gradient, copy in zip((*alike, *parts), copies, strict=True):
        torch.testing.assert_close(gradient, copy.grad)
        assert not torch.equal(gradient, copy)  # there was something to clip


@pytest.mark.parametrize("kind", [2.0, float("inf")])
def test_the_norm_of_all(kind):
    optimizer, loss, copies = problem(1.0)
    got = total_norm(*parted(optimizer, loss), loss.mesh, kind)
    torch.testing.assert_close(got, torch.cat([copy.detach().flatten() for copy in copies]).norm(kind))
    assert total_norm([], [], None, kind) == 0


def test_no_clipping_changes_nothing():
    optimizer, loss, copies = problem(1.0)
    clip(optimizer, loss, loss.mesh, None, 0.05)
    alike, parts = parted(optimizer, loss)
    assert all(torch.equal(gradient, copy) for gradient, copy in zip((*alike, *parts), copies, strict=True))

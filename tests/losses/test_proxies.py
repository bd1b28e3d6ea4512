"""Proxies of any loss; lengths held fixed."""

import pytest
import torch

from polyanchor import MultiProxyAnchorLoss
from polyanchor.losses.proxies import fixed_lengths, proxies_of


def test_lengths_stay_and_directions_are_the_steps():
    loss = MultiProxyAnchorLoss(4, 6, proxies_per_class=3, init="kaiming")
    before = loss.proxies.detach().clone()
    step = torch.randn_like(before)
    with fixed_lengths(loss), torch.no_grad():
        loss.proxies.add_(step)
    now = loss.proxies.detach()
    torch.testing.assert_close(now.norm(dim=-1), before.norm(dim=-1))
    cosine = torch.nn.functional.cosine_similarity(now, before + step, dim=-1)
    torch.testing.assert_close(cosine, torch.ones(4, 3))


def test_a_proxy_that_a_step_made_zero_stays_zero():
    loss = MultiProxyAnchorLoss(2, 3)
    with fixed_lengths(loss), torch.no_grad():
        loss.proxies[0].zero_()
    assert loss.proxies.isfinite().all() and not loss.proxies[0].any()


def test_a_loss_without_proxies_is_left_alone():
    assert proxies_of(torch.nn.CrossEntropyLoss()) is None
    with fixed_lengths(torch.nn.CrossEntropyLoss()):
        pass


def test_the_librarys_columns_are_proxies_too():
    pytest.importorskip("pytorch_metric_learning", reason="extra: compare")
    from polyanchor.losses.pml import pml_loss

    loss = pml_loss("arcface", 4, 6, margin=28.6, scale=64.0)
    with fixed_lengths(loss), torch.no_grad():
        loss.loss.W.add_(torch.randn_like(loss.loss.W))
    torch.testing.assert_close(loss.loss.W.norm(dim=0), torch.ones(4))

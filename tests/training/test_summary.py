import math

import pytest
import torch

from polyanchor.training.summary import turning


@pytest.mark.parametrize("shape", [(5, 2, 16), (16, 10)])
def test_the_angle_that_is_announced_is_the_angle_of_a_step(shape):
    torch.manual_seed(0)
    proxies = torch.nn.Parameter(torch.randn(shape) / 4)
    axis = -1 if shape[-1] == 16 else 0
    before = proxies.detach().clone()
    optimizer = torch.optim.AdamW([proxies], lr=0.02, weight_decay=0)
    said = float(turning(proxies, 0.02, 16).rpartition(" by ")[2].partition(" ")[0])
    torch.randn(shape).mul(proxies).sum().backward()
    optimizer.step()
    turned = torch.cosine_similarity(before, proxies.detach(), dim=axis).arccos().mean()
    assert math.degrees(turned) == pytest.approx(said, rel=0.15)

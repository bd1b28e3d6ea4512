import math

import pytest
import torch

from polyanchor.config.loading import load_config
from polyanchor.training.summary import turning
from polyanchor.training.train import train
from tests.compare import features


def test_the_angle_that_is_announced_is_the_angle_of_a_step():
    shape = (5, 2, 16)
    torch.manual_seed(0)
    proxies = torch.nn.Parameter(torch.randn(shape) / 4)
    before = proxies.detach().clone()
    optimizer = torch.optim.AdamW([proxies], lr=0.02, weight_decay=0)
    said = float(turning(proxies, 0.02, 16).rpartition(" by ")[2].partition(" ")[0])
    torch.randn(shape).mul(proxies).sum().backward()
    optimizer.step()
    turned = torch.cosine_similarity(before, proxies.detach(), dim=-1).arccos().mean()
    assert math.degrees(turned) == pytest.approx(said, rel=0.15)


@pytest.mark.parametrize("name", ["proxy-anchor", "proxy-nca", "softtriple", "arcface"])
def test_every_loss_announces_the_length_that_its_proxies_have(tmp_path, name):
    """Proxies start at length 1, whichever way round pytorch-metric-learning keeps them."""
    pytest.importorskip("pytorch_metric_learning", reason="extra: compare")
    vectors, lines = features.write(tmp_path / "v.safetensors"), []
    own = [setting for setting in features.settings(vectors) if not setting.startswith("loss.")]
    config = load_config(settings=[*own, f"loss.name={name}", "run.epochs=1"])
    train(config, tmp_path / "run", announce=lines.append)
    (line,) = (line for line in lines if line.startswith("optimizer proxies"))
    assert "; length 1.00, " in line

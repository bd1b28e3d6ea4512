"""A finished run asks nothing of the machine that it was trained on."""

import pytest
import torch

from polyanchor.cli.app import run
from polyanchor.config.builders import device_of, usable_here
from polyanchor.deploy.embedder import Embedder
from polyanchor.training.train import train
from tests.tiny_runs import config


@pytest.fixture
def elsewhere(photos, tmp_path, monkeypatch):
    """A run as four GPUs of two nodes, with half-precision, sharded proxies and a logger of their own, leave it."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    folder = tmp_path / "run"
    train(config(photos, "run.epochs=1"), folder)
    text = (folder / "config.toml").read_text()
    for old, new in (
        ('accelerator = "auto"', 'accelerator = "gpu"'),
        ("devices = 1", "devices = 4"),
        ("nodes = 1", "nodes = 2"),
        ('precision = "32-true"', 'precision = "bf16-mixed"'),
        ('proxy_sharding = "none"', 'proxy_sharding = "class"'),
        ("sync_bn = false", "sync_bn = true"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    (folder / "config.toml").write_text(text)
    return folder


@pytest.mark.slow
def test_every_use_of_a_finished_run_works_on_one_cpu(elsewhere, tmp_path, capsys):
    assert run(["evaluate", str(elsewhere)]) == 0
    for option in ("--run.accelerator", "--accelerator", "--device"):
        assert run(["evaluate", str(elsewhere), option, "gpu"]) == 2
        assert "run.accelerator must be auto or cpu on this machine, got 'gpu'" in capsys.readouterr().err
    commands = [
        ["embed", str(elsewhere), "--out", str(tmp_path / "x.safetensors")],
        ["report", str(elsewhere), "--out", str(tmp_path / "x.html")],
        ["export", str(elsewhere), "--to", "safetensors", "--out", str(tmp_path / "saved")],
        ["index", "build", str(elsewhere), "--out", str(tmp_path / "x.index")],
        ["analyze", "proxies", str(elsewhere), "--out", str(tmp_path / "proxies")],
        ["analyze", "gradients", str(elsewhere), "--out", str(tmp_path / "gradients")],
    ]
    assert [run(command) for command in commands] == [0] * len(commands), capsys.readouterr().err
    assert Embedder.from_run(elsewhere).embed([next((tmp_path / "photos").rglob("*.png"))]).shape == (1, 8)


def test_a_device_that_is_there_stays(photos):
    asked = config(photos, "run.accelerator=cpu", "run.devices=4")
    assert usable_here(asked).run.accelerator == "cpu" and usable_here(asked).run.devices == 1
    assert (
        device_of(usable_here(config(photos, "run.accelerator=gpu"))).type == "cpu" or torch.accelerator.is_available()
    )

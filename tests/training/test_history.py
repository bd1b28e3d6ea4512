"""Rows of epochs: angles against the closed form, and the same rows after an interruption."""

import json
import math

import pytest
import torch

from polyanchor import MultiProxyAnchorLoss
from polyanchor.training.callbacks import HISTORY_PROXIES, angles
from polyanchor.training.stopping import Interrupted, StopRequest
from polyanchor.training.train import train
from tests.compare import features


def test_angles_are_those_of_a_rotation():
    degrees = torch.tensor([0.0, 1e-3, 30.0, 90.0, 179.0, 180.0], dtype=torch.float64)
    a = 3 * torch.eye(2, dtype=torch.float64)[[0] * 6]
    b = torch.stack([torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))], dim=1)
    torch.testing.assert_close(angles(a, b), degrees)


def test_a_part_of_many_proxies_is_watched():
    loss = MultiProxyAnchorLoss(700, 4, proxies_per_class=5)
    seen = loss.spaced_proxies(HISTORY_PROXIES)
    assert 500 < len(seen) <= 1_000
    rows = loss.proxies.detach().flatten(0, 1)
    assert torch.equal(seen, rows[:: math.ceil(3_500 / 1_000)])


def rows_of(folder):
    return json.loads((folder / "results.json").read_text())["epochs"]


@pytest.mark.slow
def test_an_interrupted_run_has_the_rows_of_a_whole_one(tmp_path):
    path = features.write(tmp_path / "v.safetensors")
    config = features.config(path, "run.epochs=3", "optim.proxy_lr_mult=100", "data.train_share=0.9")
    train(config, tmp_path / "whole")
    stop = StopRequest()

    def announce(line):
        if line.startswith("epoch 1"):
            stop.made = True

    try:
        train(config, tmp_path / "parts", announce=announce, stop=stop)
    except Interrupted:
        train(config, tmp_path / "parts", resume=True)
    whole, parts = rows_of(tmp_path / "whole"), rows_of(tmp_path / "parts")
    assert whole == parts and len(whole) == 3
    assert all(0 < row["proxy_turn"] < 180 and row["proxy_length"] > 0.5 for row in whole)
    assert {"loss", "val/map@r"} <= set(whole[0])


@pytest.mark.slow
def test_fixed_lengths_stay_and_free_ones_do_not(tmp_path):
    path = features.write(tmp_path / "v.safetensors")
    lengths = {}
    for kind, fixed in (("free", "false"), ("fixed", "true")):
        train(features.config(path, f"optim.renormalize_proxies={fixed}", "optim.proxy_lr_mult=300"), tmp_path / kind)
        lengths[kind] = [row["proxy_length"] for row in rows_of(tmp_path / kind)]
    assert all(abs(length - 1) < 1e-5 for length in lengths["fixed"])
    assert abs(lengths["free"][-1] - 1) > 1e-3


def test_a_loss_between_items_has_no_proxies_to_watch(tmp_path):
    path = features.write(tmp_path / "v.safetensors")
    settings = [s for s in features.settings(path, "loss.name=supcon") if "proxies_per_class" not in s]
    train(features.load_config(settings=settings), tmp_path / "run")
    assert "proxy_turn" not in rows_of(tmp_path / "run")[0]

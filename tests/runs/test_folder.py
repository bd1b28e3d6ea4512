"""The way back from a folder to a model."""

import os

import pytest
import torch

from polyanchor.config.loading import load_config
from polyanchor.losses.multi_proxy_anchor import MultiProxyAnchorLoss
from polyanchor.models.embedding import create_model
from polyanchor.report.write import write_report
from polyanchor.runs.folder import RunFolder
from polyanchor.training.train import train
from tests.tiny_runs import config

CONFIG = load_config(settings=["model.backbone=test_resnet", "model.embedding_dim=6", "model.pooling=max"])


@pytest.fixture
def folder(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.begin()
    run.write_config(CONFIG)
    return run


def test_the_model_comes_back_bit_by_bit(folder):
    model = create_model("test_resnet", embedding_dim=6, pooling="max").eval()
    folder.save_model(model, MultiProxyAnchorLoss(3, 6).state_dict(), torch.tensor([4, 7, 9]))
    image = torch.rand(2, 3, 48, 48)
    torch.testing.assert_close(folder.load_model()(image), model(image))


def test_proxies_and_their_classes_are_in_the_file(folder):
    from safetensors.torch import load_file

    loss = MultiProxyAnchorLoss(3, 6)
    folder.save_model(create_model("test_resnet", embedding_dim=6), loss.state_dict(), torch.tensor([4, 7, 9]))
    tensors = load_file(folder.model)
    assert torch.equal(tensors["loss.proxies"], loss.proxies.detach())
    assert tensors["classes"].tolist() == [4, 7, 9]


def test_an_unfinished_run_says_how_to_go_on(folder):
    with pytest.raises(FileNotFoundError, match="not finished; go on with: polyanchor train --resume"):
        folder.load_model()


def test_a_damaged_model_file(folder):
    folder.model.write_bytes(b"damage")
    with pytest.raises(ValueError, match="not a safetensors file"):
        folder.load_model()


@pytest.mark.slow
def test_every_file_of_a_run_has_the_mode_that_the_umask_gives(photos, tmp_path):
    before = os.umask(0o027)
    try:
        train(config(photos, "run.epochs=1"), tmp_path / "run")
        write_report(tmp_path / "run", tmp_path / "run" / "report.html", tsne=False)
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "run").rglob("*") if file.is_file()}
    assert {"model.safetensors", "per_query.safetensors", "results.json", "report.html", "last.ckpt"} <= set(modes)
    assert {name: oct(mode) for name, mode in modes.items() if mode != 0o640} == {}

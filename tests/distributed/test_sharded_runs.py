"""A checkpoint whose proxies lie in a folder beside it, ended at any moment of its writing (here by one process)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from polyanchor.distributed.sharded_loss import ShardedMultiProxyAnchorLoss
from polyanchor.runs.folder import RunFolder
from polyanchor.training import callbacks
from polyanchor.training.resume import CheckpointFiles
from polyanchor.training.train import train
from tests.compare import features

CHANGES = ["loss.proxy_sharding=class", "run.epochs=4", "data.val_share=0.4"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    vectors = features.write(folder / "v.safetensors")
    train(features.config(vectors, *CHANGES), folder / "run")
    return vectors, load_file(RunFolder(folder / "run").model)


def at_call(number, function):
    """The function, in whose n-th call the process ends instead of doing it."""
    calls = []

    def ended(*args, **options):
        calls.append(0)
        if len(calls) == number:
            raise KeyboardInterrupt
        return function(*args, **options)

    return ended


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 3, 4])
@pytest.mark.parametrize("moment", ["before the proxies", "between proxies and file", "before the old ones go"])
def test_ended_in_the_writing_it_goes_on_exactly(whole, tmp_path, monkeypatch, moment, number):
    vectors, want = whole
    home, name = {
        "before the proxies": (ShardedMultiProxyAnchorLoss, "save_shards"),
        "between proxies and file": (CheckpointFiles, "save_checkpoint"),
        "before the old ones go": (callbacks, "remove_unused_shards"),
    }[moment]
    with monkeypatch.context() as patch:
        patch.setattr(home, name, at_call(number, getattr(home, name)))
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(features.config(vectors, *CHANGES), tmp_path / "run")
    train(features.config(vectors, *CHANGES), tmp_path / "run", resume=True)
    got = load_file(RunFolder(tmp_path / "run").model)
    assert all(torch.equal(got[name], tensor) for name, tensor in want.items())
    named = {
        torch.load(file, weights_only=True)[callbacks.SHARDS] for file in (tmp_path / "run/checkpoints").glob("*.ckpt")
    }
    assert {folder.name for folder in Path(tmp_path / "run/checkpoints").glob("proxies-*")} == named


@pytest.mark.slow
def test_proxies_of_a_checkpoint_that_are_gone_are_named(whole, tmp_path):
    vectors, _ = whole
    train(features.config(vectors, "loss.proxy_sharding=class", "run.epochs=1"), tmp_path / "run")
    for folder in (tmp_path / "run/checkpoints").glob("proxies-*"):
        folder.rename(tmp_path / folder.name)
    with pytest.raises(FileNotFoundError, match="proxies-00000002 is not there"):
        train(features.config(vectors, "loss.proxy_sharding=class", "run.epochs=2"), tmp_path / "run", resume=True)


@pytest.mark.slow
def test_a_share_of_the_classes_trains_on_one_device_and_goes_on_exactly(whole, tmp_path, monkeypatch):
    vectors, exact = whole
    of = features.config(vectors, *CHANGES, "loss.negative_sample_rate=0.5", "batches.classes_per_batch=2")
    train(of, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFiles, "save_checkpoint", at_call(4, CheckpointFiles.save_checkpoint))
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(of, tmp_path / "parts")
    train(of, tmp_path / "parts", resume=True)
    one, other = (load_file(RunFolder(tmp_path / name).model) for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["loss.proxies"], exact["loss.proxies"])

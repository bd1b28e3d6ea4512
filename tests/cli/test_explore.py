"""`polyanchor explore` as a user types it."""

import json
import os
import shlex

import pytest

from polyanchor.cli.app import run
from tests.tiny_runs import arguments


@pytest.fixture
def trained(photos, tmp_path, capsys):
    assert run(["train", *arguments(photos, "run.epochs=1"), "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    return tmp_path / "run"


def program(folder, name):
    """A stand-in that writes down how it was called."""
    folder.mkdir()
    (folder / name).write_text(f'#!/bin/sh\necho "$@" > {folder}/called\n')
    (folder / name).chmod(0o755)
    return folder


def test_it_writes_prints_and_starts(trained, tmp_path, capsys, monkeypatch):
    place = program(tmp_path / "bin", "embedding-atlas")
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    assert run(["explore", str(trained), "--no-start"]) == 0
    out, err = capsys.readouterr()
    assert not (place / "called").exists()
    table = trained / "explore" / "embeddings.parquet"
    assert f"16 items are in {table}" in out
    assert f"  embedding-atlas {table} --vector vector --image image\n" in out
    assert f"  tensorboard --logdir {trained / 'explore' / 'projector'}\n" in out
    assert "not installed" not in err
    assert run(["explore", str(trained), "--split", "all", "--out", str(tmp_path / "x")]) == 0
    assert (
        place / "called"
    ).read_text().strip() == f"{tmp_path / 'x' / 'embeddings.parquet'} --vector vector --image image"


def test_without_the_viewer_the_pip_command_is_named(trained, capsys, monkeypatch):
    monkeypatch.setattr("polyanchor.explore.explore.installed", lambda name: None)
    assert run(["explore", str(trained), "--json"]) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert said["items"] == 16
    assert shlex.split(said["commands"]["tensorboard"]) == ["tensorboard", "--logdir", said["projector"]]
    assert "pip install embedding-atlas" in err


def test_vectors_have_no_image_column(tmp_path, capsys, monkeypatch):
    import torch
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    save_file({"vectors": torch.randn(40, 6), "labels": torch.arange(40) % 8}, "f.safetensors")
    settings = ["data.source=features:f.safetensors", "model.backbone=none", "run.epochs=1", "model.embedding_dim=4"]
    assert run(["train", *[word for one in settings for word in ("--set", one)], "--out", "run"]) == 0
    assert run(["explore", "run", "--no-start"]) == 0
    assert "embedding-atlas run/explore/embeddings.parquet --vector vector\n" in capsys.readouterr().out
    assert not (tmp_path / "run" / "explore" / "projector" / "sprite.png").exists()


def test_bad_input_is_one_message_and_nothing_is_written(trained, tmp_path, capsys):
    assert run(["explore", str(trained), "--split", "tests"]) == 2
    assert "did you mean 'test'" in capsys.readouterr().err
    assert run(["explore", str(tmp_path / "photos")]) == 2
    assert "is not a run" in capsys.readouterr().err
    assert not (trained / "explore").exists()

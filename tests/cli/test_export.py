"""`polyanchor export`: from a run's folder to files, and what is printed."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from polyanchor.cli.app import run
from polyanchor.deploy.embedder import open_embedder
from tests.deploy.embedders import image_embedder
from tests.tiny_runs import arguments


@pytest.fixture
def finished(photos, tmp_path, capsys):
    assert run(["train", *arguments(photos, "run.epochs=1"), "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    return tmp_path / "run"


@pytest.mark.slow
def test_a_run_to_every_form(finished, photos, tmp_path, capsys):
    folder = tmp_path / "folder"
    assert run(["export", str(finished), "--to", "safetensors", "--out", str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"wrote {folder / 'README.md'}, " in out
    assert "0 in a vector of length 1; allowed 1e-04" in out

    words = ["--to", "onnx", "--out", str(tmp_path / "photos.onnx"), "--json"]
    assert run(["export", str(folder), *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == [str(tmp_path / "photos.onnx"), str(tmp_path / "photos.onnx.json")]
    assert told["largest_difference"] <= 1e-4

    image = Image.open(photos / "class0" / "0.png").resize((18, 18))
    pixels = np.asarray(image)[None, 1:17, 1:17]
    (got,) = onnxruntime.InferenceSession(told["files"][0]).run(None, {"pixels": pixels})
    torch.testing.assert_close(torch.from_numpy(got), open_embedder(finished).embed([image]), rtol=0, atol=1e-5)


@pytest.fixture
def saved(tmp_path):
    image_embedder().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.slow
def test_the_table(saved, tmp_path, capsys):
    assert run(["export", str(saved), "--to", "pt2", "--out", str(tmp_path / "photos.pt2")]) == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in (
        f"wrote {tmp_path / 'photos.pt2'}, ",
        "pixels uint8 (batch, 16, 16, 3): RGB, 0 to 255",
        "embeddings float32 (batch, 8)",
        "becomes 18 pixels",
        "mean [0.4, 0.5, 0.6]",
    ):
        assert words in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["{saved}", "--to", "onxx", "--out", "a.onnx"],
            "'onxx' is not one of 'onnx', 'pt2', 'safetensors'; did you mean 'onnx'",
        ),
        (["{saved}", "--to", "onnx", "--out", "a.pt"], "--out must end in .onnx"),
        (["{saved}", "--to", "pt2", "--out", "a.pt2", "--pixels", "rgb"], "'rgb' is not one of 'uint8', 'float'"),
        (["{saved}", "--to", "safetensors", "--out", "{saved}"], "is not an empty folder"),
        (["{saved}/..", "--to", "onnx", "--out", "a.onnx"], "neither a run's folder nor a saved embedder"),
    ],
)
def test_errors(saved, words, message, capsys):
    assert run(["export", *(word.format(saved=saved) for word in words)]) == 2
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err

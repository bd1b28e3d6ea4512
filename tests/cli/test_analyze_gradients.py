"""`polyanchor analyze gradients` as a user types it, on a run on images."""

import json
import re

import pytest

from polyanchor.cli.app import run
from tests.tiny_runs import arguments

FEW = ["--batches", "2", "--run.threads", "1"]


@pytest.fixture
def trained(photos, tmp_path, capsys):
    def made(*changes):
        assert run(["train", *arguments(photos, "run.epochs=2", *changes), "--out", str(tmp_path / "run")]) == 0
        capsys.readouterr()
        return str(tmp_path / "run")

    return made


@pytest.mark.slow
def test_a_table_and_a_folder(trained, tmp_path, capsys):
    assert run(["analyze", "gradients", trained("loss.anchor=data"), "--over-training", *FEW]) == 0
    out, err = capsys.readouterr()
    assert "multi-proxy-anchor, 2 batches of 6 items" in out
    assert re.search(r"│ pull share +│ +0\.\d+ │", out)
    assert re.search(r"│ of another item of its class +│ +0 │ +0 │ +0 │", out)  # data-anchored: nobody answers
    assert re.search(r"│ +2 │ +[01]\.\d{3} │", out)
    assert "did not go exactly" not in out
    folder = tmp_path / "run" / "analysis" / "gradients"
    assert f"gradients.json and figures are in {folder}" in err
    figures = {f"{name}.{kind}" for name in ("similarity", "curves", "capacity") for kind in ("svg", "png")}
    assert {file.name for file in folder.iterdir()} == {"gradients.json"} | figures


@pytest.mark.slow
def test_json_is_what_the_file_holds_and_options_arrive(trained, tmp_path, capsys):
    options = ["--out", str(tmp_path / "x"), "--reference", "arcface", "--json", *FEW]
    assert run(["analyze", "gradients", trained(), *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "x" / "gradients.json").read_text())
    assert found["batches"] == 2
    assert list(found["curves"]) == ["family, class", "family, data", "family, mixed", "arcface", "this run"]


@pytest.mark.slow
def test_images_that_cannot_be_read(trained, photos, capsys):
    folder = trained()
    for name in photos.iterdir():
        for number in range(4):
            (name / f"{number}.png").write_bytes(b"no image")
    assert run(["analyze", "gradients", folder, *FEW]) == 2
    assert "--on-bad-image skip" in capsys.readouterr().err
    assert run(["analyze", "gradients", folder, "--batches", "3", "--on-bad-image", "skip"]) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--reference", "softriple"], "did you mean 'softtriple'?"),
        (["--batches", "0"], "--batches"),
        (["--loss.gamma", "1"], "only data, images, batches and run keys of a finished run can change, got loss.gamma"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(trained_on_photos, options, words, capsys):
    assert run(["analyze", "gradients", str(trained_on_photos), *options]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert words in err
    assert "Traceback" not in err


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert run(["analyze", "gradients", str(tmp_path)]) == 2
    assert "is not a run: it has no config.toml" in capsys.readouterr().err

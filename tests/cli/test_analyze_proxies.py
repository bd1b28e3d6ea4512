"""`polyanchor analyze proxies` as a user types it, on a run on images."""

import json
import re

import pytest
from PIL import Image

from polyanchor.cli.app import run
from tests.tiny_runs import arguments


@pytest.fixture
def trained(photos, tmp_path, capsys):
    def made():
        assert run(["train", *arguments(photos, "run.epochs=1"), "--out", str(tmp_path / "run")]) == 0
        capsys.readouterr()
        return str(tmp_path / "run")

    return made


@pytest.mark.slow
def test_a_table_and_a_folder_with_contact_sheets(trained, tmp_path, capsys):
    assert run(["analyze", "proxies", trained()]) == 0
    out, err = capsys.readouterr()
    assert "16 train items, 2 classes, 2 centres each" in out
    assert "effective number, nearest centre" in out
    assert "AMI with" not in out  # photos have no known finer classes
    assert re.search(r"│ class\d │ +8 │ +[12] │", out)
    folder = tmp_path / "run" / "analysis" / "proxies"
    assert f"proxies.json, figures and contact sheets are in {folder}" in err
    assert {file.name for file in folder.iterdir()} == {"proxies.json", "centres.svg", "centres.png", "sheets"}
    classes = json.loads((folder / "proxies.json").read_text())["classes"]
    for one in classes:
        with Image.open(folder / one["sheet"]) as sheet:
            assert sheet.width > 190 + 84
        names = [name for of_centre in one["nearest"].values() for name in of_centre]
        assert names and all(name.startswith(one["name"] + "/") for name in names)


@pytest.mark.slow
def test_json_is_what_the_file_holds_and_options_arrive(trained, tmp_path, capsys):
    options = ["--out", str(tmp_path / "x"), "--classes", "1", "--merged-above", "-1", "--json"]
    assert run(["analyze", "proxies", trained(), *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "x" / "proxies.json").read_text())
    assert [one["merged"] for one in found["classes"]] == [[[0, 1]]] * 2
    assert len(list((tmp_path / "x" / "sheets").iterdir())) == 1


@pytest.mark.slow
def test_images_that_cannot_be_read(trained, photos, tmp_path, capsys):
    folder = trained()
    names = [path.name for path in photos.iterdir()]
    for name in names:
        (photos / name / "0.png").write_bytes(b"no image")
    assert run(["analyze", "proxies", folder]) == 2
    assert "--on-bad-image skip" in capsys.readouterr().err
    assert run(["analyze", "proxies", folder, "--on-bad-image", "skip"]) == 0
    out = capsys.readouterr().out
    assert "14 train items" in out
    assert "note: 2 image(s) could not be read and were left out: class" in out
    found = json.loads((tmp_path / "run" / "analysis" / "proxies" / "proxies.json").read_text())
    shown = [name for one in found["classes"] for of_centre in one["nearest"].values() for name in of_centre]
    assert shown and not [name for name in shown if name.endswith("/0.png")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--split", "test"], "none of the 16 test items is of one (the split is zero-shot); take --split train"),
        (["--split", "tost"], "split must be one of 'train', 'test', got 'tost'; did you mean 'test'?"),
        (["--loss.gamma", "1"], "only data, images, batches and run keys of a finished run can change, got loss.gamma"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(trained_on_photos, options, words, capsys):
    assert run(["analyze", "proxies", str(trained_on_photos), *options]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert words in err
    assert "Traceback" not in err


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert run(["analyze", "proxies", str(tmp_path)]) == 2
    assert "is not a run: it has no config.toml" in capsys.readouterr().err

"""`polyanchor report` as a user types it."""

import json

import pytest

from polyanchor.cli.app import run
from tests.tiny_runs import arguments


@pytest.fixture
def trained(photos, tmp_path, capsys):
    assert run(["train", *arguments(photos, "run.epochs=1"), "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    return tmp_path / "run"


def test_the_file_to_stdout_and_the_rest_to_stderr(trained, tmp_path, capsys):
    assert run(["report", str(trained), "--no-tsne"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{trained / 'report.html'}\n"
    assert "MB: 16 queries, 36 points in the map" in err
    page = (trained / "report.html").read_text()
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    said = [
        "--out",
        str(tmp_path / "new" / "page.html"),
        "--class",
        "class5",
        "--queries",
        "1",
        "--points",
        "9",
        "--json",
    ]
    assert run(["report", str(trained), *said]) == 0
    out, err = capsys.readouterr()
    found, results = json.loads(out), json.loads((trained / "results.json").read_text())
    assert found["path"] == said[1] and found["size"] == (tmp_path / "new" / "page.html").stat().st_size
    assert found["points"] == 9 + 4
    recall = found["measures"]["recall@1"]
    assert recall["mean"] == pytest.approx(results["test"]["means"]["recall@1"], abs=1e-6)
    assert recall["over_queries"][0] <= recall["mean"] <= recall["over_queries"][1]
    assert "t-SNE" in err


@pytest.mark.slow
def test_bad_input_is_one_message(trained, tmp_path, capsys):
    cases = {
        ("--split", "tests"): "did you mean 'test'",
        ("--split", "gallery"): "split must be one of 'test', 'validation', 'train'",
        ("--class", "class9"): "--class must be a class of the test or of the training items, got 'class9'",
        ("--loss.alpha", "3"): "only data, images, batches and run keys",
        ("--run.k", "[99]"): "99",
        ("--data.source", "folder:nowhere"): "nowhere",
        ("--out", str(tmp_path)): "--out must be a file, got the folder",
        ("--points", "0"): "--points",
    }
    for words, message in cases.items():
        assert run(["report", str(trained), *words]) == 2, words
        out, err = capsys.readouterr()
        assert message in err and "Traceback" not in err and out == ""
    assert run(["report", str(tmp_path / "photos")]) == 2
    assert "is not a run: it has no config.toml" in capsys.readouterr().err
    assert run(["report", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not (trained / "report.html").exists()
    (trained / "results.json").unlink()
    assert run(["report", str(trained)]) == 2
    assert f"polyanchor train --resume {trained}" in capsys.readouterr().err
    assert run(["train", "--resume", str(trained)]) == 0  # the way that the message names
    (trained / "model.safetensors").write_bytes(b"no weights")
    assert run(["report", str(trained)]) == 2
    assert "Traceback" not in capsys.readouterr().err
    (trained / "model.safetensors").unlink()
    assert run(["report", str(trained)]) == 2
    assert "has no model.safetensors" in capsys.readouterr().err


def test_help_shows_an_example(capsys):
    assert run(["report", "--help"]) == 0
    assert "Example: polyanchor report runs/photos" in capsys.readouterr().out

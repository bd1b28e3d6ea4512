"""``compare`` and ``analyze measures`` from the command line: table, JSON, errors in one line."""

import json

import pytest

pytest.importorskip("optuna", reason="extra: compare")
pytest.importorskip("pytorch_metric_learning", reason="extra: compare")
from polyanchor.cli.app import run
from tests.compare import features


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    return features.write(tmp_path_factory.mktemp("vectors") / "v.safetensors")


def arguments(vectors, out, *more):
    words = [f"--{setting}" for setting in features.settings(vectors)]
    methods = ["--method", "class", "--method", "arcface"]
    return ["compare", *words, *methods, "--seeds", "2", "--trials", "1", *more, "--out", str(out)]


@pytest.mark.slow
def test_the_table_and_its_stability(vectors, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="extra: report")
    out = tmp_path / "out"
    assert run(arguments(vectors, out)) == 0
    said = capsys.readouterr()
    assert "arcface" in said.out and "p seeds" in said.out and "Holm" in said.out
    assert "class seed 1  test classes: recall@1" in said.err and "tuning arcface 1/1" in said.err
    assert run(arguments(vectors, out, "--json")) == 0
    table = json.loads(capsys.readouterr().out)
    assert {line["label"] for line in table["lines"]} == {"class", "arcface"} and table["reference"] == "class"
    assert (out / "table.md").read_text().startswith("| method | runs |")
    assert run(["analyze", "measures", str(out)]) == 0
    assert "tau" in capsys.readouterr().out
    assert (out / "stability" / "stability.svg").is_file()
    assert run(["analyze", "measures", str(out), "--no-galleries", "--json", "--out", str(tmp_path / "s")]) == 0
    assert json.loads(capsys.readouterr().out)["galleries"] == {}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--method", "arcfac"], "did you mean 'arcface'?"),
        (["--reference", "x"], "to test against, must be one of class, arcface, got 'x'"),
        (["--data.val_share", "0"], "set data.val_share above 0, or --trials 0"),
        (["--data.source", "features:none.npz"], "no such file"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(vectors, tmp_path, capsys, more, words):
    out = tmp_path / "out"
    assert run(arguments(vectors, out, *more)) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
    assert not out.exists()


def test_a_folder_that_is_no_comparison(tmp_path, capsys):
    assert run(["analyze", "measures", str(tmp_path)]) == 2
    assert "is not a comparison" in capsys.readouterr().err

"""`polyanchor evaluate` and `polyanchor embed` on a finished run: the same numbers by every way."""

import json

import pytest
import torch

import polyanchor as pa
from polyanchor.cli.app import run
from polyanchor.datasets.formats.vectors import read


@pytest.fixture
def finished(trained_on_photos):
    return trained_on_photos


def evaluated(capsys, *words):
    assert run(["evaluate", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_model_gives_the_numbers_of_its_run_again(finished, capsys):
    assert evaluated(capsys, finished) == json.loads((finished / "results.json").read_text())["test"]


def test_a_file_of_embeddings_gives_the_same_numbers(finished, tmp_path, capsys):
    file = tmp_path / "test.safetensors"
    assert run(["embed", str(finished), "--out", str(file)]) == 0
    assert "(16, 8) vectors, 2 classes, the test part" in capsys.readouterr().err
    cutoffs = "--k", "1", "--k", "2"
    assert evaluated(capsys, file, *cutoffs)["means"] == evaluated(capsys, finished, *cutoffs)["means"]
    items = read(file).items
    torch.testing.assert_close(items.inputs.norm(dim=1), torch.ones(16))
    want = pa.evaluate_retrieval(items.inputs, items.labels, k=3).means["ndcg@3"]
    assert evaluated(capsys, file, "--k", "3")["means"]["ndcg@3"] == want
    assert items.name(0).endswith("class4/0.png")


def test_other_parts_and_other_data(finished, photos, capsys):
    assert evaluated(capsys, finished, "--split", "validation")["queries"] == 16
    assert evaluated(capsys, finished, "--data", f"folder:{photos}")["queries"] == 48


def test_all_parts_in_one_file_are_a_features_source(finished, tmp_path, capsys):
    file = tmp_path / "all.safetensors"
    assert run(["embed", str(finished), "--split", "all", "--features", "--out", str(file)]) == 0
    parts = evaluated(capsys, file)
    assert (parts["queries"], parts["notes"]) == (16, ["the test part of the file, 16 of 48 rows"])
    settings = ["--data.source", f"features:{file}", "--model.backbone", "none", "--run.epochs", "1"]
    more = ["--batches.classes_per_batch", "2", "--data.val_share", "0"]
    assert run(["train", *settings, *more, "--out", str(tmp_path / "head")]) == 0
    assert json.loads((tmp_path / "head" / "split.json").read_text())["train_classes"] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["evaluate", "{run}", "--split", "tests"], "did you mean 'test'"),
        (
            ["evaluate", "{run}", "--loss.anchor", "data"],
            "only data, images and run keys of a finished run can change, got loss.anchor",
        ),
        (["evaluate", "{run}", "--k", "99"], "15"),
        (["embed", "{run}", "--out", "x.npy"], "--out must end in .safetensors"),
        (["embed", "{run}", "--split", "gallery", "--out", "x.safetensors"], "no gallery part"),
        (["evaluate", "{run}/config.toml"], "expected a file that ends in .safetensors, .npz, .npy"),
        (["evaluate", "nowhere"], "does not exist"),
        (["evaluate", "{run}/logs"], "is not a run: it has no config.toml"),
    ],
)
def test_errors(finished, command, words, capsys):
    assert run([word.format(run=finished) for word in command]) == 2
    err = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert words in err
    assert "Traceback" not in err

"""From a run to gradients.json: the family's three members behave as their definitions say."""

import json
import sys

import pytest
import torch

from polyanchor.analysis.gradient_report import _training_batches, report_gradients
from polyanchor.datasets.loading import ItemDataset
from polyanchor.datasets.samplers import Row
from polyanchor.runs.load import open_trained
from polyanchor.training.train import train
from tests.tiny_runs import config


def trained(photos, tmp_path, *changes):
    train(config(photos, "run.threads=1", "data.val_share=0", *changes), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.slow
@pytest.mark.parametrize("anchor", ["data", "class", "mixed"])
def test_class_wise_and_data_wise_are_measured(photos, tmp_path, anchor):
    run = trained(photos, tmp_path, "run.epochs=1", f"loss.anchor={anchor}")
    found = report_gradients(run, tmp_path / "out", batches=2, movers=4)
    assert found == json.loads((tmp_path / "out" / "gradients.json").read_text())
    answers = found["response"]
    assert (answers["pull"]["own_class"] > 0) is (anchor != "data")
    assert (answers["push"]["other_classes"] > 0) is (anchor == "class")
    assert answers["pull"]["other_classes"] == 0
    assert (found["batches"], found["batch_size"]) == (2, 6)
    assert 0 < found["pull_share"] < 1
    items, classes = found["items"], found["classes"]
    assert sum(items["pull"]) / len(items["pull"]) == pytest.approx(found["strength"]["pull"])
    assert sum(sum(one["items"]) for one in classes) == len(items["class"]) == len(items["length"])
    assert set(items["class"]) == {number for one in classes for number in one["classes"]}
    pull, push = found["strength"]["pull"], found["strength"]["push"]
    assert found["pull_share"] == pytest.approx(pull / (pull + push))
    assert 1 <= found["concentration"]["pull_items"] <= found["concentration"]["pull_of"] == 3
    assert 1 <= found["concentration"]["push_classes"] <= found["concentration"]["push_of"] == 3
    assert list(found["curves"])[-1] == "this run"
    assert len(found["curves"]) == 7
    assert found["curves"]["this run"]["pull"] != found["curves"]["normsoftmax"]["pull"]
    assert "over_training" not in found
    chosen = _training_batches(open_trained(run), 1)
    dataset = ItemDataset(chosen.items, chosen.transform)
    assert not torch.equal(
        dataset[Row(0)][0], dataset[Row(0, epoch=1)][0]
    )  # augmented: another epoch shows it otherwise
    assert not (tmp_path / "out" / "capacity.png").exists()


@pytest.mark.slow
def test_over_training_is_the_same_run_again(photos, tmp_path):
    run = trained(photos, tmp_path, "run.epochs=2")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    lines = []
    found = report_gradients(run, tmp_path / "out", batches=1, over_training=True, announce=lines.append)
    measured = found["over_training"]
    assert [row["epoch"] for row in measured["epochs"]] == [1, 2]
    assert measured["same_losses_as_the_run"]
    # without validation classes the run keeps its last epoch, which is what the other numbers were measured on
    assert measured["epochs"][-1]["mean"] == pytest.approx(found["strength"]["mean"], rel=1e-4)
    assert measured["epochs"][0]["mean"] != pytest.approx(found["strength"]["mean"], rel=1e-3)
    assert "once more" in lines[0]
    assert (tmp_path / "out" / "capacity.png").exists()
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


@pytest.mark.slow
def test_another_training_is_not_called_the_same(photos, tmp_path):
    run = trained(photos, tmp_path, "run.epochs=1")
    results = json.loads((run / "results.json").read_text())
    results["epochs"][0]["loss"] += 1
    (run / "results.json").write_text(json.dumps(results))
    found = report_gradients(run, tmp_path / "out", batches=1, over_training=True)
    assert not found["over_training"]["same_losses_as_the_run"]


@pytest.mark.slow
def test_a_missing_library_is_a_note(photos, tmp_path, monkeypatch):
    run = trained(photos, tmp_path, "run.epochs=1")
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning.losses", None)
    found = report_gradients(run, tmp_path / "out", batches=1)
    assert list(found["curves"]) == ["family, class", "family, data", "family, mixed", "this run"]
    assert "normsoftmax" in found["notes"][0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batches": 0}, "--batches must be"),
        ({"reference": ("softriple",)}, "did you mean 'softtriple'"),
        ({"reference": ("arcface",) * 4}, "at most 3 losses"),
    ],
)
def test_bad_input(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        report_gradients(tmp_path, tmp_path / "out", **options)
    with pytest.raises(FileNotFoundError, match="is not a run"):
        report_gradients(tmp_path, tmp_path / "out")

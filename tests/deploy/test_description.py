"""What a run's folder says of itself, and what of it is not for others to see."""

import json

import pytest

from polyanchor.deploy.description import Description, origin_of, read_description
from polyanchor.runs.folder import RunFolder
from polyanchor.training.train import train
from tests.tiny_runs import config


@pytest.fixture
def run(photos, tmp_path):
    train(config(photos, "run.epochs=1", "data.source=folder:" + str(photos)), tmp_path / "run")
    return RunFolder(tmp_path / "run")


def test_a_run_says_what_trained_and_what_was_measured(run):
    origin = origin_of(run, run.read_config())
    split = json.loads(run.split.read_text())
    assert origin.train_classes == tuple(f"class{number}" for number in split["train_classes"])
    assert origin.test_classes == ("class4", "class5")
    assert (origin.run, origin.validation_classes, origin.epochs, origin.seed) == ("run", 2, 1, 0)
    assert origin.loss["name"] == "multi-proxy-anchor" and origin.loss["proxies_per_class"] == 2
    results = json.loads(run.results.read_text())
    published = "test", "before", "epoch", "point", "chosen_by", "validation", "environment"
    assert origin.results == {key: results[key] for key in published}


def test_no_folder_of_this_machine_is_told(run, photos, tmp_path):
    results = json.loads(run.results.read_text())
    results["test"]["notes"] = [f"12 images of folder:{photos} were missing"]
    run.results.write_text(json.dumps(results))
    settings = f"data.test=folder:{photos}", f"model.weights={tmp_path / 'first.pt'}"
    origin = origin_of(run, run.read_config(settings))
    assert str(tmp_path) not in origin.model_dump_json()
    assert origin.source == origin.test_source == "folder:photos"
    assert origin.results["test"]["notes"] == ["12 images of folder:photos were missing"]
    assert origin.initial_weights == "first.pt"


def test_a_run_that_was_stopped_before_measuring(run):
    run.results.unlink()
    origin = origin_of(run, run.read_config())
    assert origin.train_classes == ("class2", "class3")
    assert origin.results is None


def test_a_damaged_file_of_the_run_is_named(run):
    run.results.write_text('{"test": ')
    with pytest.raises(ValueError, match=r"results\.json: "):
        origin_of(run, run.read_config())


def test_there_and_back(run, tmp_path):
    description = Description(backbone="none", embedding_dim=3, origin=origin_of(run, run.read_config()))
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**description.model_dump(mode="json"), "fingerprint": "0f"}))
    assert read_description(file) == (description, "0f")

"""Pictures while training: what is in them, and that the training does not notice."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from polyanchor.datasets.images import ImageFiles
from polyanchor.runs.evaluate import evaluate_items
from polyanchor.runs.folder import RunFolder
from polyanchor.training.callbacks import spread
from polyanchor.training.train import train
from tests.tiny_runs import config


def state(folder):
    return torch.load(RunFolder(folder).last, weights_only=True)


@pytest.mark.slow
def test_training_is_the_same_to_the_last_bit(photos, tmp_path):
    more = "run.epochs=2", "model.freeze_bn=false", "data.workers=0"
    train(config(photos, *more), tmp_path / "without")
    train(config(photos, *more, "run.log_images=1"), tmp_path / "with")
    one, other = (state(tmp_path / name) for name in ("without", "with"))
    assert all(torch.equal(tensor, other["state_dict"][name]) for name, tensor in one["state_dict"].items())
    generators = [
        next(part["generators"][0]["cpu"] for part in found["callbacks"].values() if "generators" in part)
        for found in (one, other)
    ]
    assert torch.equal(*generators)
    tests = [json.loads(RunFolder(tmp_path / name).results.read_text())["test"] for name in ("without", "with")]
    assert tests[0] == tests[1]


@pytest.mark.slow
def test_every_second_epoch_and_in_tensorboard(photos, tmp_path):
    train(config(photos, "run.epochs=3", "run.log_images=2", 'run.loggers=["tensorboard"]'), tmp_path / "run")
    folder = tmp_path / "run" / "logs"
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == ["proxies-0002.png", "queries-0002.png"]
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert sorted(events.Tags()["images"]) == ["proxies", "queries"]
    shown = events.Images("queries")
    assert len(shown) == 1
    (folder / "shown.png").write_bytes(shown[0].encoded_image_string)
    pixels = [np.asarray(Image.open(path)) for path in (folder / "shown.png", folder / "pictures" / "queries-0002.png")]
    assert np.array_equal(*pixels)


@pytest.mark.slow
def test_test_images_are_not_read(photos, tmp_path, monkeypatch):
    """Classes 4 and 5 test: while pictures are drawn none of them is opened."""
    read, seen = ImageFiles.read, []

    def watched(self, row, *more):
        seen.append(self.name(row))
        return read(self, row, *more)

    monkeypatch.setattr(ImageFiles, "read", watched)

    def no_test(*args, **options):
        if "description" not in options:  # it is not the validation
            raise RuntimeError("before the test")
        return evaluate_items(*args, **options)

    monkeypatch.setattr("polyanchor.training.train.evaluate_items", no_test)
    with pytest.raises(RuntimeError, match="before the test"):
        train(config(photos, "run.epochs=1", "run.log_images=1", "run.before=false"), tmp_path / "run")
    assert {name.partition("/")[0] for name in seen} == {"class0", "class1", "class2", "class3"}
    assert len(list((tmp_path / "run" / "logs" / "pictures").iterdir())) == 2


def test_without_held_out_classes_there_is_the_plane_alone(photos, tmp_path):
    train(config(photos, "run.epochs=1", "run.log_images=1", "data.val_share=0"), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "logs" / "pictures").iterdir()] == ["proxies-0001.png"]


@pytest.mark.slow
def test_bad_images_are_left_out_of_pictures_too(photos, tmp_path):
    for number in range(4):
        (photos / f"class{number}" / "0.png").write_bytes(b"no image")
    train(config(photos, "run.epochs=1", "run.log_images=1", "data.on_bad_image=skip"), tmp_path / "run")
    assert len(list((tmp_path / "run" / "logs" / "pictures").iterdir())) == 2


def test_spread_keeps_both_ends():
    assert spread(torch.arange(100), 8).tolist() == [0, 14, 28, 42, 57, 71, 85, 99]
    assert spread(torch.arange(3), 8).tolist() == [0, 1, 2]

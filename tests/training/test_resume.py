"""Which keys may change; the rest is tested on whole runs in test_train.py."""

import pytest

from polyanchor.config.loading import load_config
from polyanchor.runs.folder import RunFolder, write_json
from polyanchor.training.resume import check_resume

SPLIT = {"source": "x", "fingerprint": "f", "contents": "c", "train_classes": [0, 1], "validation_classes": [2]}


@pytest.fixture
def folder(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.begin()
    run.write_config(load_config())
    write_json(run.split, SPLIT)
    return run


def test_how_long_and_where_may_change(folder):
    changes = ["run.epochs=30", "run.threads=1", "run.accelerator=cpu", "data.workers=2", "data.root=elsewhere"]
    check_resume(folder, load_config(settings=changes), SPLIT)


def test_the_message_names_the_key_and_both_values(folder):
    with pytest.raises(ValueError, match=r"got another optim.lr: 0.0003 before, 0.1 now"):
        check_resume(folder, load_config(settings=["optim.lr=0.1"]), SPLIT)


@pytest.mark.parametrize("key", ["fingerprint", "train_classes", "validation_classes"])
def test_other_items_or_other_held_out_classes(folder, key):
    with pytest.raises(ValueError, match="held-out classes differ"):
        check_resume(folder, load_config(), {**SPLIT, key: "other"})


def test_the_same_names_with_other_contents(folder):
    with pytest.raises(ValueError, match=r"have the names that they had .* find FOLDER -newer .*split.json"):
        check_resume(folder, load_config(), {**SPLIT, "contents": "other"})
    accepting = load_config(settings=["data.on_changed=accept"])
    assert check_resume(folder, accepting, {**SPLIT, "contents": "other"})
    assert not check_resume(folder, accepting, SPLIT)
    assert not check_resume(folder, load_config(), {**SPLIT, "contents": "other"}, trained=False)
    write_json(folder.split, {key: value for key, value in SPLIT.items() if key != "contents"})
    with pytest.raises(ValueError, match=r"split.json.*contents"):
        check_resume(folder, load_config(), SPLIT)

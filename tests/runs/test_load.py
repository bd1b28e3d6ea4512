"""Notes of a report; the numbers themselves are tested through the command line in cli/test_evaluate.py."""

import pytest

from polyanchor.runs.load import evaluate_run
from polyanchor.training.train import train
from tests.tiny_runs import config


@pytest.mark.slow
def test_a_part_that_trained_is_called_so(photos, tmp_path):
    train(config(photos, "run.epochs=1"), tmp_path / "run")
    assert evaluate_run(tmp_path / "run", split="train").notes == ("these are the train classes, not the test classes",)
    assert evaluate_run(tmp_path / "run").notes == ()
    assert evaluate_run(tmp_path / "run", data=f"folder:{photos}").notes == (f"all items of folder:{photos}",)

import pytest

from polyanchor.training.train import train
from tests.tiny_runs import config


@pytest.fixture
def run(photos, tmp_path):
    train(config(photos, "run.epochs=1"), tmp_path / "run")
    return tmp_path / "run"

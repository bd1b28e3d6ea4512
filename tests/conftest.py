"""Small data, and a small finished run, that every room's tests share."""

import shutil

import pytest
import torch

from tests.tiny_runs import config, write_photos


@pytest.fixture(autouse=True, scope="session")
def _few_threads():
    torch.set_num_threads(1)  # the tests run side by side


@pytest.fixture(autouse=True)
def _same_numbers_each_time():
    torch.manual_seed(0)


@pytest.fixture
def photos(tmp_path):
    """A folder of 6 classes x 8 PNG files."""
    return write_photos(tmp_path / "photos")


@pytest.fixture(scope="session")
def _trained_once(tmp_path_factory):
    from polyanchor.training.train import train  # not for the tests of the core, which never ask for it

    folder = tmp_path_factory.mktemp("trained")
    train(config(write_photos(folder / "photos"), "run.epochs=1"), folder / "run")
    return folder


@pytest.fixture
def trained_on_photos(_trained_once, photos, tmp_path):
    """A run of one epoch on `photos`, in `tmp_path / "run"`: a copy of one that is trained once for all tests."""
    shutil.copytree(_trained_once / "run", tmp_path / "run")
    for file in (tmp_path / "run").rglob("*"):
        if file.suffix in {".toml", ".json", ".yaml"}:
            file.write_text(file.read_text().replace(str(_trained_once / "photos"), str(photos)))
    return tmp_path / "run"

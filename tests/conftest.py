"""Small data that every room's tests share."""

import pytest
import torch

from tests.tiny_runs import write_photos


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

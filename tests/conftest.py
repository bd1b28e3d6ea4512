"""Small data that every room's tests share."""

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True, scope="session")
def _few_threads():
    torch.set_num_threads(1)  # the tests run side by side


@pytest.fixture(autouse=True)
def _same_numbers_each_time():
    torch.manual_seed(0)


@pytest.fixture
def photos(tmp_path):
    """A folder of 6 classes x 8 PNG files of 16 x 16 pixels; a class is a colour, an image is noise around it."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    for number, colour in enumerate(rng.integers(40, 215, (6, 3))):
        (folder / f"class{number}").mkdir(parents=True)
        for image in range(8):
            pixels = np.clip(colour + rng.normal(0, 25, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class{number}" / f"{image}.png")
    return folder

"""Small images and the real data sets, where a machine has them."""

import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture(scope="session")
def picture():
    """Write a small image of one colour; its folder is made if need be."""

    def write(file: Path, colour=(200, 10, 10), size=(12, 10)) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(file)
        return file

    return write


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real data sets."""
    place = os.environ.get("POLYANCHOR_DATA")
    if not place or not Path(place).is_dir():
        pytest.skip("POLYANCHOR_DATA names no folder of data sets")
    return Path(place)


@pytest.fixture(scope="session")
def real_cars(real, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("cars")
    with tarfile.open(real / "stanford_cars_train_128px.tar") as archive:
        archive.extractall(place, filter="data")
    return place


@pytest.fixture(scope="session")
def real_omniglot(real, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("omniglot")
    for number in (1, 2):
        with zipfile.ZipFile(real / f"omniglot_images_background_small{number}.zip") as archive:
            archive.extractall(place)
    return place

"""One small run, opened and written once for all tests of the page: six classes, the last two are searched."""

import numpy as np
import pytest
from PIL import Image

from polyanchor.report.data import open_run
from polyanchor.report.write import write_report
from polyanchor.training.train import train
from tests.tiny_runs import config

EVIL = '</script><img src=x onerror="window.hacked=1">'.replace("/", "")  # a folder's name has no slash
NAMES = ["apple", "brick", "cloud", "delta", "e & f", f"z {EVIL}"]


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    place, rng = tmp_path_factory.mktemp("report"), np.random.default_rng(0)
    for number, colour in enumerate(rng.integers(40, 215, (6, 3))):
        (place / "photos" / NAMES[number]).mkdir(parents=True)
        for image in range(8):
            pixels = np.clip(colour + rng.normal(0, 60, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(place / "photos" / NAMES[number] / f"{image} {EVIL[:8]}.png")
    train(config(place / "photos", "run.epochs=2"), place / "run")
    return place / "run"


@pytest.fixture(scope="session")
def opened(run):
    return open_run(run)


@pytest.fixture(scope="session")
def written(run):
    return write_report(run, run / "report.html", queries=3)

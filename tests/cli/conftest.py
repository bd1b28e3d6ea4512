"""Finished runs that several tests read; who changes one copies it."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from polyanchor.training.train import train
from tests import tiny_runs
from tests.compare import features


@dataclass(frozen=True)
class Finished:
    """Two runs, and the data that they were trained on."""

    photos: Path
    on_photos: Path
    vectors: Path
    on_vectors: Path


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("finished")
    photos, vectors = tiny_runs.write_photos(place / "photos"), features.write(place / "vectors.safetensors")
    train(tiny_runs.config(photos, "run.epochs=1"), place / "on_photos")
    train(features.config(vectors, "run.epochs=1"), place / "on_vectors")
    return Finished(photos, place / "on_photos", vectors, place / "on_vectors")

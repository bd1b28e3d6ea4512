"""Does training learn? Omniglot: one small background set trains, the characters of the other are retrieved."""

import os
import zipfile
from pathlib import Path

import pytest

from polyanchor.config.loading import load_config
from polyanchor.training.train import train

DATA = os.environ.get("POLYANCHOR_DATA", "")


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="POLYANCHOR_DATA is not set")
def test_characters_of_other_alphabets_are_retrieved_better_after_training(tmp_path):
    for part in (1, 2):
        with zipfile.ZipFile(Path(DATA) / f"omniglot_images_background_small{part}.zip") as archive:
            archive.extractall(tmp_path)

    def reached(name: str, *changes: str) -> float:
        config = load_config(
            settings=[
                f'data.source="folder:{tmp_path / "images_background_small1"}"',
                f'data.test="folder:{tmp_path / "images_background_small2"}"',
                "data.drop_shared=true",
                "data.val_share=0",
                "images.size=32",
                "images.resize=32",
                "images.train=random-crop",
                "images.flip=false",
                "model.backbone=test_resnet",
                'model.weights=""',
                "model.embedding_dim=64",
                "batches.classes_per_batch=34",
                "optim.lr=1e-3",
                "optim.proxy_lr_mult=20",
                *changes,
            ]
        )
        report = train(config, tmp_path / name)
        assert report.queries == 20 * (156 - 50)  # Greek and Latin are in both sets
        return report.means["map@r"]

    untrained = reached("untrained", "run.epochs=1", "optim.lr=1e-12")
    assert reached("trained", "run.epochs=8", "loss.anchor=data") > 2 * untrained

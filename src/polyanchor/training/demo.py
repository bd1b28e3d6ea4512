"""The main job on data that every machine has: scikit-learn's handwritten digits as an image folder."""

from __future__ import annotations

from pathlib import Path

from polyanchor.data.digits import write_digits
from polyanchor.training.config import Config
from polyanchor.training.config_file import load_config
from polyanchor.training.summary import Announce
from polyanchor.training.train import train
from polyanchor.types import RetrievalReport

_SETTINGS = (
    # A tiny network from scratch on 32 x 32 pixels: some seconds an epoch on one core.
    'model.backbone="test_resnet"',
    "model.embedding_dim=32",
    "images.size=32",
    "images.resize=36",
    'images.train="random-crop"',
    "images.flip=false",
    "data.val_share=0",
    "batches.classes=5",
    "batches.images=12",
    "loss.proxies_per_class=2",
    "optim.lr=1e-3",
    "optim.proxy_multiple=10",
)


def demo_config(images: Path, *, epochs: int) -> Config:
    """The run of the demo on a folder of digits."""
    return load_config(settings=[*_SETTINGS, f'data.source="folder:{images.as_posix()}"', f"run.epochs={epochs}"])


def run_demo(out: Path, *, epochs: int, announce: Announce) -> RetrievalReport:
    """Write ``out/digits`` (PNG files, a folder a class), train in ``out/run``, measure.

    Args:
        out: new folder.
        epochs: passes over the training digits.
        announce: receives lines about what is being done.
    """
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; take another --out, or delete it")
    written = write_digits(out / "digits")
    announce(f"wrote {written} images of handwritten digits to {out / 'digits'}, a folder for each class")
    return train(demo_config(out / "digits", epochs=epochs), out / "run", announce=announce)

"""A small run on the `photos` folder, as settings: 4 of 6 classes train, 2 of those validate, 2 test."""

import numpy as np
from PIL import Image

from polyanchor.config.loading import load_config

SETTINGS = {
    "data.train_share": "0.7",
    "data.val_share": "0.5",
    "images.size": "16",
    "images.resize": "18",
    "model.backbone": "test_resnet",
    "model.weights": '""',
    "model.embedding_dim": "8",
    "batches.classes_per_batch": "2",
    "batches.samples_per_class": "3",
    "loss.proxies_per_class": "2",
    "run.k": "[1, 2, 8]",
    "run.loggers": '["csv"]',
}


def settings(photos, *changes):
    return [f"{key}={value}" for key, value in {"data.source": f"folder:{photos}", **SETTINGS}.items()] + [*changes]


def config(photos, *changes):
    return load_config(settings=settings(photos, *changes))


def arguments(photos, *changes):
    return [f"--{setting}" for setting in settings(photos, *changes)]


def write_photos(folder):
    """6 classes x 8 PNG files of 16 x 16 pixels; a class is a colour, an image is noise around it."""
    rng = np.random.default_rng(0)
    for number, colour in enumerate(rng.integers(40, 215, (6, 3))):
        (folder / f"class{number}").mkdir(parents=True)
        for image in range(8):
            pixels = np.clip(colour + rng.normal(0, 25, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class{number}" / f"{image}.png")
    return folder


def with_gallery(photos):
    """Move the folders of ``photos``: classes 0 to 3 train; of 4 and 5 four images are queries and four the gallery."""
    for part, numbers in {"train": range(4), "query": (4, 5), "gallery": (4, 5)}.items():
        for number in numbers:
            (photos / part / f"c{number}").mkdir(parents=True)
            for image in range(4) if part == "query" else range(4, 8) if part == "gallery" else range(8):
                (photos / f"class{number}" / f"{image}.png").rename(photos / part / f"c{number}" / f"{image}.png")
    for number in range(6):
        (photos / f"class{number}").rmdir()

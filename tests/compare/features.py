"""A file of vectors on which heads train in a moment: 12 classes of 8, in 10 dimensions, noisy."""

import torch
from safetensors.torch import save_file

from polyanchor.config.loading import load_config

SETTINGS = [
    "model.backbone=none",
    "model.embedding_dim=6",
    "data.train_share=0.7",
    "data.val_share=0.4",
    "batches.classes_per_batch=4",
    "batches.samples_per_class=4",
    "loss.proxies_per_class=2",
    "run.epochs=2",
    "run.k=[1, 2]",
    'run.loggers=["csv"]',
]


def write(path, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(12).repeat_interleave(8)
    vectors = torch.randn(12, 10, generator=generator)[labels] + torch.randn(96, 10, generator=generator)
    save_file({"vectors": vectors, "labels": labels}, path)
    return path


def settings(path, *changes):
    return [f"data.source=features:{path}", *SETTINGS, *changes]


def config(path, *changes):
    return load_config(settings=settings(path, *changes))

"""Embedders that take no training."""

import torch

from polyanchor.deploy.description import Description, Preprocessing
from polyanchor.deploy.embedder import Embedder
from polyanchor.models.embedding import create_model


def image_embedder(seed=0, pooling="avg+max", backbone="test_resnet", **changes):
    """A small network on 16 x 16 pixels whose batch norms have seen something."""
    torch.manual_seed(seed)
    preprocessing = Preprocessing(
        **{"size": 16, "resize": 18, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)} | changes
    )
    model = create_model(backbone, embedding_dim=8, pooling=pooling)
    model.train()(torch.randn(8, 3, preprocessing.size, preprocessing.size))
    described = {"backbone": backbone, "pooling": pooling, "embedding_dim": 8, "preprocessing": preprocessing}
    return Embedder(model, Description(**described))


def vector_embedder():
    """A random head."""
    model = create_model("none", features=6, embedding_dim=4)
    return Embedder(model, Description(backbone="none", embedding_dim=4))

"""The exported graph: the network with the normalisation of its input."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from polyanchor import __version__, _check
from polyanchor.deploy.embedder import Embedder

PixelFormat: TypeAlias = Literal["uint8", "float"]
PIXELS = ("uint8", "float")


class Normalised(nn.Module):
    """Unnormalised pixels -> ``(B, D)`` unit vectors.

    Args:
        network: ``(B, 3, size, size)`` normalised pixels -> ``(B, D)``.
        mean: of red, green and blue, for values in [0, 1].
        std: of red, green and blue, for values in [0, 1].
        pixels: ``"uint8"``: ``(B, size, size, 3)``, 0 to 255; ``"float"``: ``(B, 3, size, size)`` float32 in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], *, pixels: PixelFormat
    ) -> None:
        super().__init__()
        self.network, self.pixels = network, pixels
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """One batch."""
        if self.pixels == "uint8":
            pixels = pixels.permute(0, 3, 1, 2).float() / 255
        embeddings: Tensor = self.network((pixels - self.mean) / self.std)
        return embeddings


@dataclass(frozen=True)
class Graph:
    """A network to export, and the embedder to compare it with.

    Attributes:
        module: on the CPU, float32, in evaluation mode.
        embedder: its source, in the same state.
        pixels: form of the images, see :class:`Normalised`.

    Example:
        >>> from polyanchor.deploy.description import Description
        >>> from polyanchor.models.embedding import EmbeddingModel
        >>> model = EmbeddingModel(None, features=6, embedding_dim=2)
        >>> graph = graph_of(Embedder(model, Description(backbone="none", embedding_dim=2)))
        >>> inputs, expected = graph.example(3, seed=0)
        >>> torch.equal(graph.module(inputs), expected)
        True
    """

    module: nn.Module
    embedder: Embedder
    pixels: PixelFormat

    @property
    def input_name(self) -> str:
        """Name of the only input."""
        return "pixels" if self.embedder.takes_images else "vectors"

    def example(self, batch: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """Random inputs of the graph, and the embedder's ``(batch, D)`` vectors of them."""
        generator = torch.Generator().manual_seed(seed)
        transform = self.embedder.transform
        with torch.no_grad():
            if transform is None:
                vectors = torch.randn(batch, self.embedder.model.features, generator=generator)
                return vectors, self.embedder(vectors)
            colours = torch.rand(batch, 1, 1, 3, generator=generator)
            noise = torch.rand(batch, transform.size, transform.size, 3, generator=generator)
            images = ((colours + noise) / 2 * 255).round().to(torch.uint8)
            expected = self.embedder(transform.normalised(images))
        return (images if self.pixels == "uint8" else images.permute(0, 3, 1, 2) / 255), expected

    def describe(self) -> dict[str, Any]:
        """Input, output and preprocessing, for programs without polyanchor."""
        description, dim = self.embedder.description, self.embedder.embedding_dim
        preprocessing = description.preprocessing
        about: dict[str, Any] = {"polyanchor": __version__, "backbone": description.backbone}
        if preprocessing is None:
            width = self.embedder.model.features
            about["input"] = {"name": "vectors", "dtype": "float32", "shape": ["batch", width]}
        else:
            size = preprocessing.size
            shape = ["batch", size, size, 3] if self.pixels == "uint8" else ["batch", 3, size, size]
            dtype, values = ("uint8", "0 to 255") if self.pixels == "uint8" else ("float32", "0 to 1")
            about["input"] = {"name": "pixels", "dtype": dtype, "shape": shape, "values": f"RGB, {values}"}
            about["before"] = {"steps": preprocessing.steps()} | preprocessing.model_dump(
                mode="json", include={"resize", "size", "aspect", "interpolation"}
            )
            about["inside"] = preprocessing.model_dump(mode="json", include={"mean", "std"})
        about["output"] = {"name": "embeddings", "dtype": "float32", "shape": ["batch", dim], "values": "unit rows"}
        return about | {"fingerprint": self.embedder.fingerprint}


def graph_of(embedder: Embedder, *, pixels: PixelFormat = "uint8") -> Graph:
    """A copy of the embedder for export; see :class:`Normalised` for ``pixels``."""
    _check.one_of("pixels", pixels, PIXELS)
    copied = copy.deepcopy(embedder).to("cpu", torch.float32).eval()
    preprocessing = copied.description.preprocessing
    if preprocessing is None:
        return Graph(copied.model, copied, pixels)
    return Graph(Normalised(copied.model, preprocessing.mean, preprocessing.std, pixels=pixels).eval(), copied, pixels)

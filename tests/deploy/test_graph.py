"""Normalisation against numpy; what is told of the input is what the graph takes."""

import numpy as np
import pytest
import torch

from polyanchor.deploy.graph import graph_of
from tests.deploy.embedders import image_embedder, vector_embedder


@pytest.mark.parametrize("pixels", ["uint8", "float"])
def test_normalisation_is_in_the_graph(pixels):
    embedder = image_embedder()
    graph = graph_of(embedder, pixels=pixels)
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype("uint8")
    normal = (images / 255 - (0.4, 0.5, 0.6)) / (0.2, 0.3, 0.4)
    given = (
        torch.from_numpy(images) if pixels == "uint8" else torch.from_numpy(images / 255).permute(0, 3, 1, 2).float()
    )
    with torch.no_grad():
        want = embedder(torch.from_numpy(normal).permute(0, 3, 1, 2).float())
        torch.testing.assert_close(graph.module(given), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pixels", ["uint8", "float"])
def test_the_example_is_in_the_form_that_is_told(pixels):
    graph = graph_of(image_embedder(), pixels=pixels)
    inputs, expected = graph.example(3, seed=0)
    told = graph.describe()
    assert [3, *inputs.shape[1:]] == [3, *told["input"]["shape"][1:]]
    assert str(inputs.dtype) == f"torch.{told['input']['dtype']}"
    assert list(expected.shape[1:]) == told["output"]["shape"][1:]
    with torch.no_grad():
        torch.testing.assert_close(graph.module(inputs), expected, rtol=0, atol=1e-5)
    assert float(inputs.float().std()) > 0.1
    assert not torch.equal(graph.example(3, seed=1)[0], inputs)


def test_vectors():
    told = graph_of(vector_embedder()).describe()
    assert told["input"] == {"name": "vectors", "dtype": "float32", "shape": ["batch", 6]}
    assert "before" not in told and "inside" not in told


def test_the_embedder_stays_as_it_is():
    embedder = image_embedder().double()
    embedder.train()
    graph = graph_of(embedder)
    assert embedder.training and embedder.model.head.weight.dtype == torch.float64
    assert not graph.module.training and graph.embedder.model.head.weight.dtype == torch.float32


def test_another_form():
    with pytest.raises(ValueError, match="pixels must be one of 'uint8', 'float', got 'rgb'"):
        graph_of(image_embedder(), pixels="rgb")

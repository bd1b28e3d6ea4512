"""Cosine similarity of embeddings to the proxies of a class, and its pooling over the class's local centres."""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor.types import Pooling


def unit_rows(vectors: Tensor) -> Tensor:
    """Rows scaled to length 1; a row of zeros stays zero and receives no gradient.

    Dividing by ``max(length, eps)`` instead would hand a zero row a gradient of size ``1 / eps``.

    Args:
        vectors: ``(..., D)`` floating.

    Returns:
        ``(..., D)`` in the dtype of ``vectors``.

    Raises:
        TypeError: ``vectors`` are not floating.

    Example:
        >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    _check.floating("vectors", vectors, "(..., D)")
    largest = vectors.detach().abs().amax(dim=-1, keepdim=True)
    scaled = vectors / largest.masked_fill(largest == 0, 1)  # keeps squares of very long and short rows finite
    length = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return scaled / length.masked_fill(length == 0, math.inf)


def pool(similarity: Tensor, *, pooling: Pooling = "softmax", gamma: float = 0.1) -> Tensor:
    r"""Similarity of an item to a class from its similarities to the K local centres of that class.

    .. math::
        \text{softmax:}\quad & S_{ic} = \sum_k w_{ick} s_{ick}, \quad
            w_{ick} = \operatorname{softmax}_k(s_{ick} / \gamma) \\
        \text{max:}\quad & S_{ic} = \max_k s_{ick} \\
        \text{logsumexp:}\quad & S_{ic} = \gamma \bigl(\log \sum_k e^{s_{ick} / \gamma} - \log K\bigr)

    With K = 1 all three are the identity. The gradient of the soft assignment includes that of its weights:
    :math:`\partial S_{ic} / \partial s_{ick} = w_{ick} (1 + (s_{ick} - S_{ic}) / \gamma)`.

    Args:
        similarity: ``(..., K)`` floating, cosines in [-1, 1].
        pooling: one of the three above.
        gamma: width of the soft assignment in cosine units, > 0; small means the nearest centre alone.

    Returns:
        ``(...)`` in the dtype of ``similarity``.

    Raises:
        TypeError: ``similarity`` is not floating.
        ValueError: an unknown ``pooling``, ``gamma`` not above 0, or no local centre.

    References:
        The soft assignment is that of SoftTriple: Qian et al., ICCV 2019, arXiv:1909.05235, Eq. 5.

    Example:
        >>> pool(torch.tensor([[0.9, 0.1]]), pooling="max")
        tensor([0.9000])
        >>> pool(torch.tensor([[0.9, 0.1]])).round(decimals=4)
        tensor([0.8997])
    """
    _check.one_of("pooling", pooling, get_args(Pooling))
    gamma = _check.positive("gamma", gamma)
    _check.floating("similarity", similarity, "(..., K)")
    if similarity.ndim == 0 or similarity.shape[-1] == 0:
        raise InputError(f"similarity must have shape (..., K) with K at least 1, got {tuple(similarity.shape)}")
    if similarity.shape[-1] == 1:
        return similarity.squeeze(-1)
    if pooling == "max":
        return similarity.amax(dim=-1)
    if pooling == "logsumexp":
        return gamma * (torch.logsumexp(similarity / gamma, dim=-1) - math.log(similarity.shape[-1]))
    return (torch.softmax(similarity / gamma, dim=-1) * similarity).sum(dim=-1)


def class_similarity(
    embeddings: Tensor, proxies: Tensor, *, pooling: Pooling = "softmax", gamma: float = 0.1
) -> Tensor:
    r"""Pooled cosine :math:`S_{ic}` of every embedding and every class.

    Args:
        embeddings: ``(B, D)`` floating, of any length.
        proxies: ``(C, K, D)`` floating, of any length; K local centres of each of C classes.
        pooling: see :func:`pool`.
        gamma: see :func:`pool`.

    Returns:
        ``(B, C)`` in the wider dtype of the two inputs, also under autocast.

    Raises:
        TypeError: an input is not floating.
        ValueError: shapes or devices do not fit, an unknown ``pooling``, or ``gamma`` not above 0.

    Example:
        >>> proxies = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[-1.0, 0.0], [0.0, -1.0]]])
        >>> class_similarity(torch.tensor([[0.0, 5.0]]), proxies, pooling="max")
        tensor([[1., 0.]])
    """
    _check.centres(proxies)
    _check.floating("embeddings", embeddings, "(B, D)")
    if embeddings.ndim != 2 or embeddings.shape[1] != proxies.shape[2]:
        raise InputError(f"embeddings must have shape (B, {proxies.shape[2]}), got {tuple(embeddings.shape)}")
    _check.one_device("embeddings", embeddings, "proxies", proxies)
    dtype = torch.promote_types(embeddings.dtype, proxies.dtype)
    directions = unit_rows(proxies.to(dtype)).flatten(0, 1)  # (C K, D)
    with torch.autocast(embeddings.device.type, enabled=False):
        similarity = unit_rows(embeddings.to(dtype)) @ directions.T  # (B, C K)
    return pool(similarity.unflatten(1, proxies.shape[:2]), pooling=pooling, gamma=gamma)

"""From pooled features to an embedding: the neck before the head, the head's start, and a reduction afterwards."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from polyanchor import _check
from polyanchor._errors import InputError

Neck = Literal["none", "center", "batchnorm", "layernorm"]
Head = Literal["none", "linear", "pca"]


class Center(nn.Module):
    """Subtract a fixed mean: ``(B, F)`` features -> ``(B, F)``.

    Pooled features of a network that ends in a ReLU are never negative, so all their cosines are positive and no pair
    can be pushed apart for good. Less their mean over the training items, they point in all directions.

    Args:
        features: F.

    Example:
        >>> center = Center(2)
        >>> center.fit(torch.tensor([[1.0, 3.0], [3.0, 5.0]]))
        >>> center(torch.tensor([[2.0, 5.0]]))
        tensor([[0., 1.]])
    """

    mean: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))

    def forward(self, features: Tensor) -> Tensor:
        """Features less the mean, float32 or wider even under autocast."""
        return features.to(torch.promote_types(features.dtype, torch.float32)) - self.mean

    def fit(self, features: Tensor) -> None:
        """Set the mean to that of ``(N, F)`` features."""
        self.mean.copy_(features.mean(0, dtype=torch.float64))


def make_neck(neck: Neck, features: int) -> nn.Module:
    """The neck by its name, for ``(B, features)``.

    ``center``: :class:`Center`. ``batchnorm``: BNNeck, a batch norm whose shift stays 0 (Luo et al., arXiv 1906.08332).
    ``layernorm``: without scale and shift (Zhai and Wu, arXiv 1811.12649).

    Example:
        >>> make_neck("layernorm", 2)(torch.tensor([[1.0, 3.0]])).round()
        tensor([[-1.,  1.]])
    """
    _check.one_of("neck", neck, ("none", "center", "batchnorm", "layernorm"))
    if neck == "center":
        return Center(features)
    if neck == "layernorm":
        return nn.LayerNorm(features, elementwise_affine=False)
    if neck == "batchnorm":
        norm = nn.BatchNorm1d(features)
        norm.bias.requires_grad_(False)
        return norm
    return nn.Identity()


@torch.no_grad()
def fit_neck(neck: nn.Module, features: Tensor) -> None:
    """Give a neck the mean, and a batch norm the variance too, of ``(N, F)`` features; other necks are left alone.

    Example:
        >>> norm = make_neck("batchnorm", 1)
        >>> fit_neck(norm, torch.tensor([[1.0], [3.0]]))
        >>> norm.running_mean, norm.running_var
        (tensor([2.]), tensor([2.]))
    """
    if isinstance(neck, Center):
        neck.fit(features)
    elif isinstance(neck, nn.BatchNorm1d):
        assert neck.running_mean is not None  # it tracks both
        assert neck.running_var is not None
        neck.running_mean.copy_(features.double().mean(0))
        if len(features) > 1:
            neck.running_var.copy_(features.double().var(0))


@torch.no_grad()
def pca(vectors: Tensor, dim: int) -> nn.Linear:
    """Principal component analysis as a linear layer that does not train: x -> V (x - mean).

    The rows of V are the ``dim`` orthonormal directions in which the vectors vary most, the first most of all; each
    has its largest component positive. Where the vectors vary in fewer directions, the rest are drawn by a fixed seed.

    Args:
        vectors: ``(N, F)``, at least one row.
        dim: columns of the result, at most F.

    Returns:
        ``(B, F)`` -> ``(B, dim)``, float32, on the CPU; computed in float64.

    Raises:
        ValueError: ``dim`` exceeds F, or there is no row.

    Example:
        >>> reduce = pca(torch.tensor([[0.0, 0.0], [2.0, 2.0]]), 1)
        >>> reduce(torch.tensor([[2.0, 2.0], [1.0, 1.0]])).tolist()
        [[1.4142135381698608], [0.0]]
    """
    if vectors.ndim != 2 or not len(vectors):
        raise InputError(f"vectors must be (N, F) with at least one row, got {tuple(vectors.shape)}")
    width = vectors.shape[1]
    if not 1 <= dim <= width:
        raise InputError(f"dim must lie between 1 and the {width} columns of the vectors, got {dim}")
    values = vectors.detach().to("cpu", torch.float64)
    mean = values.mean(0)
    values = values - mean
    variances, directions = torch.linalg.eigh(values.T @ values)
    known = int((variances > variances.max() * 1e-12).sum().clamp(max=dim))
    directions = directions.flip(1)[:, :known].T
    directions = directions * directions.gather(1, directions.abs().argmax(1, keepdim=True)).sign()
    if known < dim:  # eigenvectors of equal values are any: they would change with the rounding
        drawn = torch.randn(dim - known, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        drawn = drawn - drawn @ directions.T @ directions
        directions = torch.cat([directions, torch.linalg.qr(drawn.T).Q.T])
    layer = nn.Linear(width, dim, device="cpu", dtype=torch.float32).requires_grad_(False)
    layer.weight.copy_(directions)
    layer.bias.copy_(-directions @ mean)
    return layer

"""Losses of pytorch-metric-learning behind ``loss(embeddings, labels)``; the one module that knows that library.

Checked against version 2.9.0. Version 3 is a clean break and is refused.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from polyanchor import _extras
from polyanchor.functional import unit_rows


class PmlLoss(nn.Module):
    """A loss of pytorch-metric-learning without miners, index tuples and reference sets.

    Args:
        loss: the module; its own parameters are this one's.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """``(B, D)`` and ``(B,)`` integer labels -> ``()`` loss, in float32.

        The library casts its parameters to the dtype of the embeddings in place, for good; so they come as
        float32 and autocast is off.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.loss(embeddings.float(), labels.long())


def soft_triple(
    num_classes: int,
    embedding_dim: int,
    *,
    centers_per_class: int = 10,
    scale: float = 20.0,
    gamma: float = 0.1,
    margin: float = 0.01,
    merging: float = 0.2,
) -> PmlLoss:
    """SoftTriple with the constants of its authors' code.

    The centres start at length 1, as the proxies of :class:`polyanchor.MultiProxyAnchorLoss` do, so that one
    learning rate means the same for both.

    Args:
        num_classes: C.
        embedding_dim: D.
        centers_per_class: K.
        scale: lambda of the paper, > 0.
        gamma: width of the soft assignment, in cosine units, > 0.
        margin: delta of the paper, in cosine units.
        merging: weight tau of the regulariser that merges centres of a class; without effect if K is 1.

    References:
        Qian et al., SoftTriple Loss: Deep Metric Learning Without Triplet Sampling, ICCV 2019, arXiv:1909.05235;
        constants of the released code: K 10, lambda 20, gamma 0.1, delta 0.01, tau 0.2.

    Example:
        >>> soft_triple(3, 8)(torch.eye(8)[:2], torch.tensor([0, 2])).shape
        torch.Size([])
    """
    losses, regularizers = _library("losses"), _library("regularizers")
    options: dict[str, Any] = {}
    if merging > 0 and centers_per_class > 1:
        sparse = regularizers.SparseCentersRegularizer(num_classes, centers_per_class)
        options = {"weight_regularizer": sparse, "weight_reg_weight": merging}
    loss = losses.SoftTripleLoss(
        num_classes,
        embedding_dim,
        centers_per_class=centers_per_class,
        la=scale,
        gamma=gamma,
        margin=margin,
        **options,
    )
    with torch.no_grad():
        loss.fc.copy_(unit_rows(torch.randn_like(loss.fc).T).T)  # columns are centres
    return PmlLoss(loss)


def _library(part: str) -> Any:
    module = _extras.load(f"pytorch_metric_learning.{part}", "compare")
    found = version("pytorch-metric-learning")
    major, minor = (int(part) for part in found.split(".")[:2])
    if major != 2 or minor < 8:
        raise ImportError(
            f"the baselines were checked against pytorch-metric-learning 2.8 and 2.9, found {found}; "
            "run: pip install 'polyanchor[compare]'"
        )
    return module

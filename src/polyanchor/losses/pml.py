"""Losses of pytorch-metric-learning as ``loss(embeddings, labels)``; no other module imports that library.

Checked against version 2.9.0. Version 3 is a clean break and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from polyanchor import _check
from polyanchor._optional import load
from polyanchor.functional import unit_rows
from polyanchor.losses.base import EmbeddingLoss
from polyanchor.types import BaselineName as BaselineName


@dataclass(frozen=True)
class Baseline:
    """A loss of the library, and the names of its options here and there.

    Attributes:
        loss: class in ``pytorch_metric_learning.losses``.
        source: the paper.
        options: our name of an option -> the library's; the configuration has all defaults.
        weights: parameter that holds the proxies, or "" for a loss between items.
        columns: whether proxies are the columns of that parameter.
        miner: class in ``pytorch_metric_learning.miners``, our name of its option -> the library's, fixed options.
    """

    loss: str
    source: str
    options: Mapping[str, str]
    weights: str = ""
    columns: bool = False
    miner: tuple[str, Mapping[str, str], Mapping[str, str]] | None = None


BASELINES: Mapping[str, Baseline] = {
    "proxy-nca": Baseline(
        "ProxyNCALoss", "Movshovitz-Attias et al., ICCV 2017", {"scale": "softmax_scale"}, weights="proxies"
    ),
    "normsoftmax": Baseline(
        "NormalizedSoftmaxLoss", "Zhai and Wu, BMVC 2019", {"temperature": "temperature"}, weights="W", columns=True
    ),
    "softtriple": Baseline(
        "SoftTripleLoss",
        "Qian et al., ICCV 2019",
        {"proxies_per_class": "centers_per_class", "scale": "la", "gamma": "gamma", "margin": "margin"},
        weights="fc",
        columns=True,
    ),
    "arcface": Baseline(
        "ArcFaceLoss", "Deng et al., CVPR 2019", {"margin": "margin", "scale": "scale"}, weights="W", columns=True
    ),
    "subcenter-arcface": Baseline(
        "SubCenterArcFaceLoss",
        "Deng et al., ECCV 2020",
        {"proxies_per_class": "sub_centers", "margin": "margin", "scale": "scale"},
        weights="W",
        columns=True,
    ),
    "proxy-anchor": Baseline(
        "ProxyAnchorLoss", "Kim et al., CVPR 2020", {"alpha": "alpha", "delta": "margin"}, weights="proxies"
    ),
    "multi-similarity": Baseline(
        "MultiSimilarityLoss",
        "Wang et al., CVPR 2019",
        {"alpha": "alpha", "beta": "beta", "base": "base"},
        miner=("MultiSimilarityMiner", {"epsilon": "epsilon"}, {}),
    ),
    "supcon": Baseline("SupConLoss", "Khosla et al., NeurIPS 2020", {"temperature": "temperature"}),
    "triplet": Baseline(
        "TripletMarginLoss",
        "Schroff et al., CVPR 2015",
        {"margin": "margin"},
        miner=("TripletMarginMiner", {"margin": "margin"}, {"type_of_triplets": "semihard"}),
    ),
    "contrastive": Baseline(
        "ContrastiveLoss", "Hadsell et al., CVPR 2006", {"positive": "pos_margin", "negative": "neg_margin"}
    ),
}


class PmlLoss(EmbeddingLoss):
    """A loss of pytorch-metric-learning, with its miner if it has one.

    Args:
        loss: the module; its own parameters are this one's.
        miner: chooses pairs or triplets of a batch.
        weights: name of the parameter that holds the proxies, or "".
        classes: C.
        columns: whether proxies are the columns of that parameter.
    """

    def __init__(
        self,
        loss: nn.Module,
        *,
        miner: nn.Module | None = None,
        weights: str = "",
        classes: int = 0,
        columns: bool = False,
    ) -> None:
        super().__init__()
        self.loss, self.miner = loss, miner
        self._weights, self._classes, self._columns = weights, classes, columns

    @property
    def proxies(self) -> Tensor | None:
        """``(C, K, D)`` view of the proxies, of any length; None for a loss between items."""
        if not self._weights:
            return None
        weight: Tensor = getattr(self.loss, self._weights)
        rows = weight.T if self._columns else weight
        return rows.view(self._classes, -1, rows.shape[1])

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """``(B, D)`` and ``(B,)`` integer labels -> ``()`` loss, in float32, or in the wider dtype of the proxies.

        The library casts its parameters in place to the dtype of the embeddings, so the embeddings are cast to that
        of the parameters, with autocast off.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            wide = torch.promote_types(embeddings.dtype, torch.float32)
            embeddings = embeddings.to(next((weight.dtype for weight in self.parameters()), wide))
            labels = labels.long()
            chosen = None if self.miner is None else self.miner(embeddings, labels)
            return self.loss(embeddings, labels, chosen)


def pml_loss(
    name: BaselineName, num_classes: int, embedding_dim: int, *, center_reg: float = 0.0, **options: float
) -> PmlLoss:
    """A loss of the library by its name in the configuration.

    Proxies start at length 1, as those of :class:`polyanchor.MultiProxyAnchorLoss` do, so that a learning rate means
    the same for all losses; the library's own initial lengths differ from loss to loss.

    Args:
        name: one of :data:`BASELINES`.
        num_classes: C.
        embedding_dim: D.
        center_reg: for ``softtriple`` with K above 1, weight tau of its regulariser, which merges centres of a class
            and keeps ``(C K, C K)`` masks.
        **options: all options that :data:`BASELINES` names for this loss, in the library's units: ``margin`` is in
            degrees for the ArcFace losses, a distance for ``triplet`` and ``contrastive``, else a cosine.

    Raises:
        ImportError: another major version of the library.
        MissingExtraError: the library is not installed.
        ValueError: an unknown name.

    Example:
        >>> pml_loss("arcface", 3, 8, margin=28.6, scale=64.0)(torch.eye(8)[:2], torch.tensor([0, 2])).shape
        torch.Size([])
    """
    _check.one_of("name", name, tuple(BASELINES))
    baseline = BASELINES[name]
    losses = _library("losses")
    arguments: dict[str, Any] = {theirs: options[ours] for ours, theirs in baseline.options.items()}
    if baseline.weights:
        arguments |= {"num_classes": num_classes, "embedding_size": embedding_dim}
    centres = int(options.get("proxies_per_class", 1))
    if name == "softtriple" and center_reg > 0 and centres > 1:
        sparse = _library("regularizers").SparseCentersRegularizer(num_classes, centres)
        arguments |= {"weight_regularizer": sparse, "weight_reg_weight": center_reg}
    miner = None
    if baseline.miner is not None:
        kind, named, fixed = baseline.miner
        miner = getattr(_library("miners"), kind)(**{theirs: options[ours] for ours, theirs in named.items()}, **fixed)
    loss = PmlLoss(
        getattr(losses, baseline.loss)(**arguments),
        miner=miner,
        weights=baseline.weights,
        classes=num_classes,
        columns=baseline.columns,
    )
    if loss.proxies is not None:
        with torch.no_grad():
            loss.proxies.copy_(unit_rows(torch.randn(loss.proxies.shape)))
    return loss


def _library(part: str) -> Any:
    module = load(f"pytorch_metric_learning.{part}", "compare")
    installed = version("pytorch-metric-learning")
    major, minor = (int(number) for number in installed.split(".")[:2])
    if major != 2 or minor < 8:
        raise ImportError(
            f"the baselines were checked against pytorch-metric-learning 2.8 and 2.9, found {installed}; "
            "run: pip install 'polyanchor[compare]'"
        )
    return module

"""Backbone, pooling, linear head, unit length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from polyanchor import _check, _extras
from polyanchor._errors import InputError
from polyanchor.functional import unit_rows
from polyanchor.models import bn_inception
from polyanchor.models.weights import load_weights

ModelPooling = Literal["avg", "max", "avg+max"]
_TIMM_POOLING = {"avg": "avg", "max": "max", "avg+max": "avgmax"}


@dataclass(frozen=True)
class InputStatistics:
    """What the backbone's training subtracted from and divided its RGB values in [0, 1] by."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class EmbeddingModel(nn.Module):
    """Inputs to unit vectors: ``(B, 3, H, W)`` images, or ``(B, F)`` vectors if there is no backbone.

    Args:
        backbone: a module that gives ``(B, features)``, or None for precomputed vectors.
        features: width of what the head receives.
        embedding_dim: D, columns of the embedding.
        statistics: normalisation of the images; None for vectors.
        freeze_bn: keep the running statistics of every batch norm as they are in training too. Their scales
            and shifts do train, as in the released Proxy Anchor code.

    Example:
        >>> model = EmbeddingModel(None, features=6, embedding_dim=2)
        >>> torch.allclose(model(torch.ones(3, 6)).norm(dim=1), torch.ones(3))
        True
    """

    def __init__(
        self,
        backbone: nn.Module | None,
        *,
        features: int,
        embedding_dim: int,
        statistics: InputStatistics | None = None,
        freeze_bn: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(features, embedding_dim)
        nn.init.kaiming_normal_(self.head.weight, mode="fan_out")
        nn.init.zeros_(self.head.bias)
        self.statistics = statistics
        self.freeze_bn = freeze_bn
        self.backbone_frozen = False

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs -> ``(B, D)`` vectors of length 1, float32 or wider also under autocast."""
        if self.backbone is not None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.backbone_frozen):
                inputs = self.backbone(inputs)
        return self.embed_features(inputs)

    def embed_features(self, features: Tensor) -> Tensor:
        """``(B, features)``, what the backbone gives, -> ``(B, D)`` as :meth:`forward` does."""
        embeddings = self.head(features)
        return unit_rows(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)))

    def train(self, mode: bool = True) -> EmbeddingModel:
        """As in every module; frozen batch norms, and a frozen backbone, stay in evaluation mode."""
        super().train(mode)
        if self.backbone is not None:
            if self.backbone_frozen:
                self.backbone.eval()
            elif self.freeze_bn:
                for module in self.backbone.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self


def create_model(
    backbone: str,
    *,
    embedding_dim: int,
    pooling: ModelPooling = "avg+max",
    weights: str = "",
    freeze_bn: bool = False,
    features: int = 0,
) -> EmbeddingModel:
    """A model by the name of its backbone.

    Args:
        backbone: any timm model name, ``"bn_inception"`` (extra ``bn-inception``), or ``"none"`` for vectors of width
            ``features``.
        embedding_dim: D.
        pooling: ``"avg+max"`` is timm's ``avgmax``, half the sum; the head and the unit length take up the half.
        weights: ``""`` for random, ``"hub"`` for timm's own from the model hub, else the path of a ``.safetensors``
            file or of a state dict, which is read without executing pickled code.
        freeze_bn: see :class:`EmbeddingModel`.
        features: width of the vectors when there is no backbone.

    Raises:
        ConnectionError: the hub cannot be reached.
        ValueError: unknown backbone (the nearest known name is given), pooling that it does not support, or
            weights that do not fit.

    Example:
        >>> create_model("none", features=8, embedding_dim=4)(torch.ones(1, 8)).shape
        torch.Size([1, 4])
    """
    _check.one_of("pooling", pooling, get_args(ModelPooling))
    if backbone == "none":
        _check.count("features", features)
        return EmbeddingModel(None, features=features, embedding_dim=embedding_dim)
    if weights and weights != "hub" and not Path(weights).is_file():
        raise FileNotFoundError(f"weights must be '', 'hub' or a file, found no file {weights!r}")
    if backbone == "bn_inception":
        network: nn.Module = bn_inception.create(_TIMM_POOLING[pooling], weights=weights)
        width, statistics = bn_inception.FEATURES, InputStatistics(bn_inception.MEAN, bn_inception.STD)
    else:
        network, width, statistics = _from_timm(backbone, pooling, weights)
    return EmbeddingModel(
        network, features=width, embedding_dim=embedding_dim, statistics=statistics, freeze_bn=freeze_bn
    )


def _from_timm(backbone: str, pooling: ModelPooling, weights: str) -> tuple[nn.Module, int, InputStatistics]:
    """The network without its classifier, the width of what it gives, and what it wants its images to be."""
    timm = _extras.load("timm", "train")
    if not timm.is_model(backbone.partition(".")[0]):
        raise InputError(
            f"backbone must be a timm model name, 'bn_inception' or 'none', got {backbone!r}"
            f"{_check.nearest(backbone, [*timm.list_models(), 'bn_inception'])}"
        )
    try:
        network: Any = timm.create_model(backbone, pretrained=weights == "hub")
    except RuntimeError as error:  # a tag of pretrained weights that there is not
        raise InputError(f"{backbone}: {error}") from error
    except OSError as error:
        raise ConnectionError(
            f"the weights of {backbone} could not be fetched from the hub ({error}); without a network, give "
            "model.weights a local file"
        ) from error
    if weights not in ("", "hub"):
        load_weights(network, Path(weights))
    try:
        network.reset_classifier(0, global_pool=_TIMM_POOLING[pooling])
    except (AssertionError, TypeError) as error:
        raise InputError(f"{backbone} does not support pooling {pooling!r}: {error}") from error
    config = network.pretrained_cfg
    width = getattr(network, "head_hidden_size", None) or network.num_features
    return network, width, InputStatistics(tuple(config["mean"]), tuple(config["std"]))


def restored_model(
    backbone: str, weights: Mapping[str, Tensor], *, pooling: ModelPooling, channels_last: bool
) -> EmbeddingModel:
    """A trained model from its state dict, in evaluation mode, on the CPU; nothing is fetched.

    Args:
        backbone: see :func:`create_model`.
        weights: what ``state_dict()`` of the model gave.
        pooling: see :func:`create_model`.
        channels_last: memory format of the convolutions.

    Raises:
        ValueError: the weights are not those of such a model.

    Example:
        >>> model = EmbeddingModel(None, features=6, embedding_dim=2)
        >>> restored_model("none", model.state_dict(), pooling="avg", channels_last=False).head
        Linear(in_features=6, out_features=2, bias=True)
    """
    head = weights.get("head.weight", torch.empty(0))
    if head.ndim != 2:
        raise InputError(f"the weights must hold head.weight of shape (D, features), got {tuple(head.shape)}")
    model = create_model(backbone, embedding_dim=head.shape[0], pooling=pooling, features=head.shape[1])
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"the weights are not those of {backbone} with pooling {pooling!r}: {error}") from error
    return model.to(memory_format=torch.channels_last).eval() if channels_last else model.eval()

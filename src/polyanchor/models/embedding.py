"""The embedding model: backbone, pooling, neck, head, reduction, unit length."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from polyanchor import _check
from polyanchor._defaults import own_defaults
from polyanchor._errors import InputError
from polyanchor._io import user_path
from polyanchor._optional import load
from polyanchor.functional import unit_rows
from polyanchor.models import bn_inception
from polyanchor.models.head import Head, Neck, make_neck
from polyanchor.models.weights import at_once, load_weights

ModelPooling = Literal["auto", "own", "avg", "max", "avg+max"]
_OF_A_RUN = "model.safetensors"  # in the folder of a run, or of a saved embedder
_TIMM_POOLING = {"avg": "avg", "max": "max", "avg+max": "avgmax"}


@dataclass(frozen=True)
class InputStatistics:
    """Mean and standard deviation by which the backbone's training normalised RGB values in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class EmbeddingModel(nn.Module):
    """A network from inputs to unit vectors: ``(B, 3, H, W)`` images, or ``(B, F)`` vectors if there is no backbone.

    The ``(B, F)`` features pass the neck and the head and get length 1: these vectors are trained. A ``reduction`` that
    is set after the training maps them to fewer columns, of length 1 again.

    Args:
        backbone: a module that gives ``(B, features)``, or None for precomputed vectors.
        features: F, columns of the neck's and the head's input.
        embedding_dim: D, columns of a linear head; a model without a head has ``features``.
        statistics: normalisation of the images; None for vectors.
        neck: see :func:`~polyanchor.models.head.make_neck`.
        head: ``"none"``, ``"linear"``, or ``"pca"``: a linear one that starts at :func:`~polyanchor.models.head.pca`.
        freeze_bn: keep the running statistics of every batch norm fixed in training. Scales and shifts are
            trained, as in the released Proxy Anchor code.

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
        neck: Neck = "none",
        head: Head = "linear",
    ) -> None:
        super().__init__()
        _check.one_of("head", head, get_args(Head))
        self.backbone = backbone
        self.features = features = _check.count("features", features)
        embedding_dim = _check.count("embedding_dim", embedding_dim)
        self.neck, self.neck_name = make_neck(neck, features), neck
        self.head: nn.Linear | None = None
        if head != "none":
            self.head = nn.Linear(features, embedding_dim)
            nn.init.kaiming_normal_(self.head.weight, mode="fan_out")
            nn.init.zeros_(self.head.bias)
        self.reduction: nn.Linear | None = None
        self.statistics = statistics
        self.freeze_bn = freeze_bn
        self.backbone_frozen = False
        self.pooling: ModelPooling = "auto"  # of the backbone, with "auto" resolved
        self.notes: tuple[str, ...] = ()  # about its weights

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs -> ``(B, D)`` vectors of length 1, float32 or wider even under autocast."""
        if self.backbone is not None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.backbone_frozen):
                inputs = self.backbone(inputs)
        return self.embed_features(inputs)

    def embed_features(self, features: Tensor) -> Tensor:
        """``(B, features)`` outputs of the backbone -> ``(B, D)`` as :meth:`forward`."""
        embeddings = self.neck(features)
        if self.head is not None:
            embeddings = self.head(embeddings)
        return self.reduced(unit_rows(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))))

    @property
    def train_dim(self) -> int:
        """Columns of the vectors that the loss sees."""
        return self.features if self.head is None else self.head.out_features

    @property
    def embedding_dim(self) -> int:
        """D, columns of the embedding."""
        return self.train_dim if self.reduction is None else self.reduction.out_features

    def reduced(self, vectors: Tensor) -> Tensor:
        """Trained ``(..., train_dim)`` unit vectors, embeddings or proxies, -> ``(..., D)`` unit vectors."""
        if self.reduction is None:
            return vectors
        with torch.autocast(vectors.device.type, enabled=False):
            reduced = self.reduction(vectors.flatten(0, -2).to(self.reduction.weight.dtype))
        return unit_rows(reduced.to(vectors.dtype)).view(*vectors.shape[:-1], self.embedding_dim)

    def train(self, mode: bool = True) -> EmbeddingModel:
        """Set the mode; frozen batch norms and a frozen backbone stay in evaluation mode."""
        super().train(mode)
        if self.backbone is not None:
            if self.backbone_frozen:
                self.backbone.eval()
            elif self.freeze_bn:
                for module in self.backbone.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self


@own_defaults()
def create_model(
    backbone: str,
    *,
    embedding_dim: int,
    pooling: ModelPooling = "auto",
    weights: str = "",
    weights_key: str = "",
    freeze_bn: bool = False,
    neck: Neck = "none",
    head: Head = "linear",
    features: int = 0,
    image_size: int | None = None,
) -> EmbeddingModel:
    """Create a model by the name of its backbone.

    Args:
        backbone: any timm model name, ``"bn_inception"`` (extra ``bn-inception``), or ``"none"`` for vectors of width
            ``features``.
        embedding_dim: D.
        pooling: ``"avg"``, ``"max"`` or ``"avg+max"`` (timm's ``avgmax``, half the sum; the head absorbs the half).
            ``"own"``: the backbone's own, a class token for most transformers. ``"auto"``: ``"avg+max"`` where the
            backbone has a feature map and supports it, else ``"own"``; the model's ``pooling`` says which.
        weights: ``""`` for random, ``"hub"`` for timm's own from the model hub, else the path of a ``.safetensors``
            file or of a state dict, which is read without executing pickled code, or of the folder of a finished run;
            the model's ``notes`` say which of its tensors were chosen.
        weights_key: location in that file, see :func:`~polyanchor.models.weights.load_weights`.
        freeze_bn: see :class:`EmbeddingModel`, also for the next two.
        neck: ``"none"``, ``"center"``, ``"batchnorm"`` or ``"layernorm"``.
        head: ``"none"``, ``"linear"`` or ``"pca"``; a model without backbone needs one.
        features: width of the vectors when there is no backbone.
        image_size: side of the square images; positions of transformers are interpolated from the size of the weights
            to it. None: the backbone's own.

    Raises:
        ConnectionError: the hub cannot be reached.
        ValueError: unknown backbone (the nearest name is given), pooling or image size that it does not support, or
            weights that do not fit.

    Example:
        >>> create_model("none", features=8, embedding_dim=4)(torch.ones(1, 8)).shape
        torch.Size([1, 4])
    """
    _check.one_of("pooling", pooling, get_args(ModelPooling))
    if backbone == "none":
        _check.count("features", features)
        return EmbeddingModel(None, features=features, embedding_dim=embedding_dim, neck=neck, head=head)
    if (user_path(weights) / _OF_A_RUN).is_file():
        weights = str(user_path(weights) / _OF_A_RUN)
    if weights and weights != "hub" and not user_path(weights).is_file():
        raise FileNotFoundError(f"weights must be 'hub', a file, or '' for random ones, found no file {weights!r}")
    if backbone == "bn_inception":
        network: nn.Module
        pooling = {"auto": "avg+max", "own": "avg"}.get(pooling, pooling)  # type: ignore[assignment]
        network, notes = bn_inception.create(_TIMM_POOLING[pooling], weights=weights, weights_key=weights_key)
        width, statistics = bn_inception.FEATURES, InputStatistics(bn_inception.MEAN, bn_inception.STD)
    else:
        network, width, statistics, pooling, notes = _from_timm(backbone, pooling, weights, weights_key, image_size)
    model = EmbeddingModel(
        network,
        features=width,
        embedding_dim=embedding_dim,
        statistics=statistics,
        freeze_bn=freeze_bn,
        neck=neck,
        head=head,
    )
    model.pooling, model.notes = pooling, notes
    if image_size is not None:
        require_size(model, backbone, image_size)
    return model


def _from_timm(
    backbone: str, pooling: ModelPooling, weights: str, weights_key: str, image_size: int | None
) -> tuple[nn.Module, int, InputStatistics, ModelPooling, tuple[str, ...]]:
    """The network without its classifier, its width, input statistics and pooling, and notes."""
    timm = load("timm", "train")
    if not timm.is_model(backbone.partition(".")[0]):
        raise InputError(
            f"backbone must be a timm model name, 'bn_inception' or 'none', got {backbone!r}"
            f"{_check.nearest(backbone, [*timm.list_models(), 'bn_inception'])}"
        )
    try:
        options = _sized(backbone, image_size)
    except RuntimeError as error:  # an unknown tag of pretrained weights
        raise InputError(f"{backbone}: {error}") from error
    try:
        with at_once() if weights == "hub" else nullcontext():
            network: Any = timm.create_model(backbone, pretrained=weights == "hub", **options)
    except OSError as error:
        raise ConnectionError(
            f"the weights of {backbone} could not be fetched from the hub ({error}); without a network, give "
            "model.weights (--weights) a local file, or '' for random ones"
        ) from error
    except Exception as error:  # each family refuses a size in its own way
        if image_size is not None and options and not _takes(backbone, image_size):
            raise _size_error(backbone, image_size, error) from error
        raise
    names = list(network.state_dict())
    pooling = _without_classifier(network, backbone, pooling)
    notes: tuple[str, ...] = ()
    if weights not in ("", "hub"):
        notes = load_weights(network, Path(weights), key=weights_key, names=names)
    config = network.pretrained_cfg
    width = getattr(network, "head_hidden_size", None) or network.num_features
    return network, width, InputStatistics(tuple(config["mean"]), tuple(config["std"])), pooling, notes


def _sized(backbone: str, image_size: int | None) -> dict[str, int]:
    """Timm's option for the image size, if the network is made for one size."""
    config = load("timm", "train").get_pretrained_cfg(backbone)
    if image_size is None or config is None or not config.fixed_input_size:
        return {}
    return {} if config.input_size[1:] == (image_size, image_size) else {"img_size": image_size}


def require_size(model: EmbeddingModel, backbone: str, size: int) -> None:
    """Check that the model accepts square images of ``size`` pixels, by one image of zeros.

    Raises:
        ValueError: it does not; the nearest sizes that it accepts are named.
    """
    if model.backbone is None:
        return
    training = model.training
    try:
        _try(model.eval(), size)
    except Exception as error:  # assertions, shapes: each family has its own
        raise _size_error(backbone, size, error) from error
    finally:
        model.train(training)


def _try(model: nn.Module, size: int) -> None:
    patches: Any = next((module for module in model.modules() if hasattr(module, "strict_img_size")), None)
    if patches is not None and not patches.dynamic_img_pad:
        height, width = patches.patch_size
        if size % height or size % width:  # timm would crop the border
            raise ValueError(f"patches of {height} x {width} pixels do not divide it")
    with torch.no_grad():
        model(next(model.parameters()).new_zeros(1, 3, size, size))


def _takes(backbone: str, size: int) -> bool:
    """Whether a network made for this size works, tested on the meta device."""
    try:
        with torch.device("meta"):
            _try(load("timm", "train").create_model(backbone, **_sized(backbone, size)).eval(), size)
    except Exception:  # whatever it is, the size does not work
        return False
    return True


def _size_error(backbone: str, size: int, error: Exception) -> InputError:
    """The error that names the nearest sizes that work, below and above."""
    own = load("timm", "train").get_pretrained_cfg(backbone).input_size[1]
    near = {size // unit * unit + unit * more for unit in (7, 8, 14, 16, 32, 64, 224) for more in (0, 1)} | {own}
    nearest = sorted(near - {0, size}, key=lambda other: abs(other - size))
    fitting = [
        next((other for other in side if _takes(backbone, other)), None)
        for side in ([o for o in nearest if o < size], [o for o in nearest if o > size])
    ]
    named = " or ".join(str(other) for other in fitting if other is not None) or str(own)
    why = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(
        f"{backbone} does not take images of {size} x {size} pixels ({why}); set images.size to {named}, and "
        "images.resize to as much or more"
    )


def _without_classifier(network: Any, backbone: str, pooling: ModelPooling) -> ModelPooling:
    """Remove the classifier and set the pooling; returns the resolved pooling."""
    target = pooling
    if pooling == "auto":
        tokens = network.pretrained_cfg["pool_size"] is None and isinstance(getattr(network, "global_pool", None), str)
        target = "own" if tokens else "avg+max"
    if target != "own":
        try:
            network.reset_classifier(0, global_pool=_TIMM_POOLING[target])
        except (AssertionError, TypeError) as error:
            if pooling != "auto":
                raise InputError(
                    f"{backbone} does not support pooling {pooling!r}: {error}; 'own' is the one it was made with"
                ) from error
        else:
            return target
    network.reset_classifier(0)
    return "own"


@own_defaults()
def restored_model(
    backbone: str,
    weights: Mapping[str, Tensor],
    *,
    pooling: ModelPooling,
    channels_last: bool,
    neck: Neck = "none",
    image_size: int | None = None,
) -> EmbeddingModel:
    """A trained model from its state dict, in evaluation mode, on the CPU, without a network.

    Arguments are those of :func:`create_model`, and the memory format of the convolutions. Head and reduction are those
    that the weights hold.

    Raises:
        ValueError: the weights are not those of such a model.
    """
    layers = {name: weights.get(f"{name}.weight") for name in ("head", "reduction")}
    for name, weight in layers.items():
        if weight is not None and weight.ndim != 2:
            raise InputError(f"the weights must hold {name}.weight of shape (D, features), got {tuple(weight.shape)}")
    head, reduction = layers["head"], layers["reduction"]
    if head is None and backbone == "none":
        raise InputError("the weights must hold head.weight of shape (D, features), got none")
    model = create_model(
        backbone,
        embedding_dim=1 if head is None else head.shape[0],
        pooling=pooling,
        neck=neck,
        head="none" if head is None else "linear",
        features=0 if head is None else head.shape[1],
        image_size=image_size,
    )
    if reduction is not None:
        model.reduction = nn.Linear(reduction.shape[1], reduction.shape[0]).requires_grad_(False)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"the weights are not those of {backbone} with pooling {pooling!r}: {error}") from error
    return model.to(memory_format=torch.channels_last).eval() if channels_last else model.eval()

"""BN-Inception, the backbone of most published numbers, from pretrainedmodels, as timm lacks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from polyanchor._optional import load
from polyanchor.models.weights import answers, load_weights

FEATURES = 1024
# The Caffe model was trained on BGR in [0, 255] minus (104, 117, 128); for RGB in [0, 1] that is:
MEAN = (128 / 255, 117 / 255, 104 / 255)
STD = (1 / 255, 1 / 255, 1 / 255)


class BNInception(nn.Module):
    """RGB images to pooled features; the channels are flipped to BGR, as in training.

    Args:
        network: ``BNInception`` of the package pretrainedmodels.
        pooling: feature map -> ``(B, 1024)``.

    References:
        Ioffe and Szegedy, Batch Normalization, ICML 2015; the weights are those of the released Proxy Anchor code.
    """

    def __init__(self, network: Any, pooling: nn.Module) -> None:
        super().__init__()
        network.last_linear = nn.Identity()  # was the ImageNet classifier
        self.network, self.pooling = network, pooling

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` RGB, normalised with :data:`MEAN` and :data:`STD` -> ``(B, 1024)``."""
        pooled: Tensor = self.pooling(self.network.features(images.flip(1)))
        return pooled


def create(timm_pooling: str, *, weights: str = "", weights_key: str = "") -> tuple[BNInception, tuple[str, ...]]:
    """The backbone with pooling ``avg``, ``max`` or ``avgmax``, and notes about its weights.

    ``weights`` are ``""`` for random, ``"hub"`` for the published file, checked by its hash, or a file.

    Raises:
        ConnectionError: the published file cannot be fetched.
        MissingExtraError: pretrainedmodels is not installed.
        ValueError: the file does not fit.
    """
    module = load("pretrainedmodels.models.bninception", "bn-inception")
    network = module.BNInception(num_classes=1000)
    if weights == "hub":
        url = module.pretrained_settings["bninception"]["imagenet"]["url"]
        try:
            if not (Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).is_file() and not answers(url):
                raise ConnectionError("no answer")
            state = torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
        except OSError as error:
            raise ConnectionError(
                f"the weights of bn_inception could not be fetched from {url} ({error}); without a network, give "
                "model.weights (--weights) a local file, or '' for random ones"
            ) from error
        network.load_state_dict(state)
    pooling = load("timm.layers", "train").SelectAdaptivePool2d(pool_type=timm_pooling, flatten=True)
    names = list(network.state_dict())
    made = BNInception(network, pooling)
    local = weights not in ("", "hub")
    return made, load_weights(network, Path(weights), key=weights_key, names=names) if local else ()

"""A finished run with all that its training had: model, loss with proxies, data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from polyanchor._defaults import own_defaults
from polyanchor._errors import InputError
from polyanchor.models.embedding import EmbeddingModel, require_size
from polyanchor.models.weights import read_state
from polyanchor.training.config import Config
from polyanchor.training.device import usable_here
from polyanchor.training.run_folder import RunFolder
from polyanchor.training.setup import Parts, make_loss, open_parts, require_fitting


@dataclass(frozen=True)
class Trained:
    """What a run left.

    Attributes:
        config: of the run, with changes.
        model: of the chosen epoch, in evaluation mode, on the CPU.
        loss: with its proxies.
        classes: ``(C,)`` int64 ascending, the data source's ids of the training classes; position is class number.
        parts: the data, divided as in the training.
    """

    config: Config
    model: EmbeddingModel
    loss: nn.Module
    classes: Tensor
    parts: Parts


@own_defaults()
def open_trained(run: Path, settings: tuple[str, ...] = ()) -> Trained:
    """Open a finished run.

    Args:
        run: its folder.
        settings: changes to its ``data``, ``images``, ``batches`` and ``run`` keys.

    Raises:
        FileNotFoundError: no run, or one that is not finished.
        ValueError: a setting changes what was trained.
    """
    for setting in settings:
        if not setting.startswith(("data.", "images.", "batches.", "run.")):
            raise InputError(f"--set changes data, images, batches and run of a finished run, got {setting!r}")
    folder = RunFolder(run)
    config = usable_here(folder.read_config(settings), settings)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    model = folder.load_model()
    require_size(model, config.model.backbone, config.images.size)
    state = read_state(folder.model)
    classes = state.get("classes", torch.empty(0))
    if classes.ndim != 1 or classes.dtype != torch.int64 or not len(classes):
        raise InputError(f"{folder.model} is not what a run writes: it holds no class ids under the name classes")
    loss = make_loss(config, len(classes))
    try:
        loss.load_state_dict({name[5:]: tensor for name, tensor in state.items() if name.startswith("loss.")})
    except RuntimeError as error:
        raise InputError(f"{folder.model} does not fit the run's {folder.config.name}: {error}") from error
    parts = open_parts(config)
    everything = parts.train, parts.validation, parts.split.test, parts.split.gallery
    require_fitting(model, parts.split.name, *everything, of=str(run))
    return Trained(config, model, loss, classes, parts)

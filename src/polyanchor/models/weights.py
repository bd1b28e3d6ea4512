"""Backbone weights from a local file, without executing anything that the file holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from polyanchor._errors import InputError
from polyanchor._files import user_path
from polyanchor._tensors import read_tensors


def read_state(path: Path) -> dict[str, Tensor]:
    """Named tensors of a ``.safetensors`` file, or of a state dict written by ``torch.save``.

    A state dict is unpickled by torch's restricted reader, which refuses everything but tensors and plain
    containers. Checkpoints that keep theirs under ``state_dict`` or ``model`` are understood.

    Raises:
        ValueError: the file is neither, or holds something else, or is damaged.
    """
    path = user_path(path)
    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damage makes the unpickler fail in any way
        raise InputError(
            f"{path} must be a state dict of tensors (or end in .safetensors); it holds other objects, which are "
            f"not loaded because loading them can run code: {(str(error).splitlines() or ['no content'])[0]}"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state or not all(isinstance(t, Tensor) for t in state.values()):
        raise InputError(f"{path} must hold a state dict (names and tensors), got {type(state).__name__}")
    return dict(state)


def shapes(state: Mapping[str, Tensor]) -> list[torch.Size]:
    """In the order of the state."""
    return [tensor.shape for tensor in state.values()]


def load_weights(network: nn.Module, path: Path) -> None:
    """Fill ``network`` from a file, by name or, where no name at all agrees, by order and shape.

    Other code bases hold the same network under other names. If the two lists of shapes are equal, in order,
    the tensors of a state dict are taken one by one; anything less certain is an error.

    Raises:
        ValueError: neither the names nor the shapes fit; the first difference is named.
    """
    state, own = read_state(path), network.state_dict()
    in_order = path.suffix != ".safetensors"  # which keeps its tensors in an order of its own
    if set(state) == set(own):
        named = state
    elif in_order and not set(state) & set(own) and shapes(state) == shapes(own):
        named = dict(zip(own, state.values(), strict=True))
    else:
        missing = sorted(set(own) - set(state))
        raise InputError(
            f"{path} does not fit {type(network).__name__}: it holds {len(state)} tensors, expected {len(own)}; "
            f"{len(missing)} of the expected names are missing (first {missing[:1]}), and the shapes differ too"
        )
    try:
        network.load_state_dict(named)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit {type(network).__name__}: {error}") from error

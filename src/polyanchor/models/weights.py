"""Backbone weights from a local file, without executing its content, or from the hub."""

from __future__ import annotations

import queue
import re
import ssl
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from torch import Tensor, nn

from polyanchor._errors import InputError
from polyanchor._io import read_tensors, user_path

# Trainings that average the weights over time report that average; the last weights are beside it.
_AVERAGED = {"ema", "averaged", "average", "swa"}
# Heads that trainings put on a backbone: tensors that a file may hold beside the network's.
_HEADS = {"fc", "head", "heads", "head_dist", "classifier", "last_linear", "projector", "mask_token"}
_COUNTER = "num_batches_tracked"  # missing in old files, and never used here

PATIENCE = 6.0
"""Seconds to wait for a server to answer."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file or of a state dict of ``torch.save``, which is unpickled without running code.

    Raises:
        ValueError: the file is neither, or holds something else, or is damaged.
    """
    state = _read(user_path(path))
    if not isinstance(state, Mapping) or not state or not all(isinstance(t, Tensor) for t in state.values()):
        raise InputError(f"{path} must hold a state dict (names and tensors), got {type(state).__name__}")
    return dict(state)


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damage raises errors of any type
        raise InputError(
            f"{path} must be a state dict of tensors (or end in .safetensors); it holds other objects, which are "
            f"not loaded because loading them can run code: {(str(error).splitlines() or ['no content'])[0]}"
        ) from error


def load_weights(network: nn.Module, path: Path, *, key: str = "", names: Sequence[str] = ()) -> tuple[str, ...]:
    """Load weights into ``network``, without its classifier, by name or, where no name matches, by order.

    Names may have any prefix (``module.``, ``backbone.``), and the state dict any key of a checkpoint. Of several that
    fit, averaged weights are preferred (``state_dict_ema``, ``model_ema``), then ``state_dict``, then ``model``. A
    classifier in the file is ignored. Other code bases use other names for the same network: tensors of a state dict
    are matched by order if all shapes and the last part of each name agree; anything less certain is an error.

    Args:
        network: to fill.
        path: a ``.safetensors`` file, or a state dict or checkpoint written by ``torch.save``.
        key: location in the file: a key, a prefix of the names, or both joined by a dot; empty: any.
        names: of the network's tensors in order, including the removed classifier's; empty: it never had one.

    Returns:
        A note about the choice, if there was one.

    Raises:
        ValueError: neither names nor shapes fit (the first difference is named), or several locations fit equally well.
    """
    path, own = user_path(path), network.state_dict()
    names = list(names or own)
    groups = dict(_groups(_read(path)))
    if not groups:
        raise InputError(f"{path} must hold a state dict (names and tensors), found no tensors")
    matches = {at: state for where, group in groups.items() for at, state in _matches(where, group, own)}
    by_name = _under(key, matches)
    if by_name:
        at = _preferred(path, by_name)
        state = _fitted(path, network, by_name[at], own, names)
        note = f"backbone weights: {at} of {path.name}" if at else ""
    else:
        candidates = _under(key, groups)
        if not candidates:
            raise InputError(f"{path} has no weights of this network under {key!r}; {_listed(matches or groups)}")
        at, state = _by_order(path, network, candidates, own, names)
        note = f"backbone weights: {at or 'all'} of {path.name}, taken by order, as no name is that of the network"
    try:
        network.load_state_dict(state, strict=False)  # only counters can be missing
    except RuntimeError as error:
        raise InputError(f"{path} does not fit {type(network).__name__}: {error}") from error
    return (note,) if note else ()


def _groups(content: Any, where: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each mapping that holds tensors, by its location in the file."""
    if not isinstance(content, Mapping):
        return
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield where, tensors
    for name, value in content.items():
        yield from _groups(value, f"{where}.{name}".lstrip("."))


def _needed(own: Mapping[str, Tensor]) -> list[str]:
    return [name for name in own if not name.endswith(_COUNTER)]


def _matches(
    where: str, group: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each prefix under which the group has all names of the network, by its location, with its tensors."""
    needed = _needed(own)
    for name in group:
        if name != needed[0] and not name.endswith(f".{needed[0]}"):
            continue
        prefix = name.removesuffix(needed[0])
        if all(prefix + own_name in group for own_name in needed):
            state = {key.removeprefix(prefix): group[key] for key in group if key.startswith(prefix)}
            yield f"{where}.{prefix}".strip("."), state


def _preferred(path: Path, locations: Iterable[str]) -> str:
    locations = list(locations)
    for better in (
        [at for at in locations if _AVERAGED.intersection(re.split(r"[._]", at))],
        [at for at in locations if at == ""],
        [at for at in locations if at.split(".")[0] == "state_dict"],
        [at for at in locations if at.split(".")[0] == "model"],
        locations,
    ):
        if len(better) == 1:
            return better[0]
        if better:
            raise InputError(
                f"{path} holds weights of this network in several places: {', '.join(better)}; name one with "
                "model.weights_key"
            )
    raise AssertionError


def _fitted(
    path: Path, network: nn.Module, state: dict[str, Tensor], own: Mapping[str, Tensor], names: Sequence[str]
) -> dict[str, Tensor]:
    """The network's tensors of a state that has all its names."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    more = _more(state, own, names)
    if convert is not None and (more or any(state[name].shape != own[name].shape for name in _needed(own))):
        state = dict(convert(dict(state), network))  # timm's: interpolates positions for another image size
        more = _more(state, own, names)
    if more:
        raise InputError(
            f"{path} does not fit {type(network).__name__}: it holds all of its {len(own)} tensors and "
            f"{len(more)} more (first {more[0]!r}), so it is of a larger network; take the backbone that it was "
            "trained with"
        )
    return {name: tensor for name, tensor in state.items() if name in own}


def _more(state: Mapping[str, Tensor], own: Mapping[str, Tensor], names: Sequence[str]) -> list[str]:
    """Names that belong neither to the network nor to a head."""
    removed = tuple(f"{name.rpartition('.')[0]}." for name in names if name not in own)
    return [
        name
        for name in state
        if name not in own
        and name.split(".")[0] not in _HEADS
        and not name.endswith(_COUNTER)
        and not name.startswith(removed)
    ]


def _by_order(
    path: Path,
    network: nn.Module,
    groups: Mapping[str, Mapping[str, Tensor]],
    own: Mapping[str, Tensor],
    names: Sequence[str],
) -> tuple[str, dict[str, Tensor]]:
    """The location that fits by order, and its tensors under the network's names."""
    pairs = {at: _pairs(group, own, names) for at, group in groups.items()}
    fitting = [at for at, paired in pairs.items() if paired]
    if not fitting or path.suffix == ".safetensors":  # which does not keep the order of its tensors
        at = max(groups, key=lambda at: len(set(groups[at]) & set(own)))
        missing = sorted(set(_needed(own)) - set(groups[at]))
        raise InputError(
            f"{path} does not fit {type(network).__name__}: it holds {len(groups[at])} tensors, expected "
            f"{len(own)}; {len(missing)} of the expected names are missing (first {missing[:1]}), under any prefix, "
            f"and by order they do not fit either; {_listed(groups)}"
        )
    at = _preferred(path, fitting)
    for mine, theirs in pairs[at]:
        if mine.rpartition(".")[2] != theirs.rpartition(".")[2]:
            raise InputError(
                f"{path} does not fit {type(network).__name__}: no name agrees, and by order {theirs!r} would be "
                f"{mine!r}; rename its tensors to those of the network"
            )
    return at, {mine: groups[at][theirs] for mine, theirs in pairs[at]}


def _pairs(group: Mapping[str, Tensor], own: Mapping[str, Tensor], names: Sequence[str]) -> list[tuple[str, str]]:
    """Names of the network and of the group by order, with or without classifier; none if the shapes differ."""
    counted = any(name.endswith(_COUNTER) for name in group)
    for order in (names, list(own)):
        order = [name for name in order if counted or not name.endswith(_COUNTER)]
        if len(order) == len(group) and not set(order) & set(group):
            pairs = [(mine, theirs) for mine, theirs in zip(order, group, strict=True) if mine in own]
            complete = set(_needed(own)) <= {mine for mine, _ in pairs}
            if complete and all(own[mine].shape == group[theirs].shape for mine, theirs in pairs):
                return pairs
    return []


def _under(key: str, groups: Mapping[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    return {at: state for at, state in groups.items() if not key or at == key or at.startswith(f"{key}.")}


def _listed(locations: Iterable[str]) -> str:
    shown = [repr(at) for at in locations if at][:8]
    return f"model.weights_key may be {', '.join(shown)}" if shown else "its tensors stand under no key"


@contextmanager
def at_once() -> Iterator[None]:
    """Within the block the hub's client uses its cache alone if the hub does not answer.

    Otherwise it would ask for each of several files six times, with growing pauses: a minute and more.
    """
    offline = constants.HF_HUB_OFFLINE
    if not offline:
        constants.HF_HUB_OFFLINE = not answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def answers(address: str) -> bool:
    """Whether a server answers, even with an error, within :data:`PATIENCE`, including the look-up of its name."""
    answer: queue.Queue[bool] = queue.Queue()
    threading.Thread(target=lambda: answer.put(_answers(address)), daemon=True).start()
    try:
        return answer.get(timeout=PATIENCE)
    except queue.Empty:
        return False


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # a server is there; the hub's client has its own certificates
    except OSError:
        return False
    return True

"""Backbone weights from a local file, without executing anything that the file holds."""

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

# Who trained by an average of the weights over time measured that average; the last weights lie beside it.
_AVERAGED = {"ema", "averaged", "average", "swa"}
# What trainings put on a backbone. A file may hold it; a layer of a larger network it may not.
_HEADS = {"fc", "head", "heads", "head_dist", "classifier", "last_linear", "projector", "mask_token"}
_COUNTER = "num_batches_tracked"  # files of old do not have it, and nothing here reads it


def read_state(path: Path) -> dict[str, Tensor]:
    """Named tensors of a ``.safetensors`` file, or of a state dict written by ``torch.save``.

    A state dict is unpickled by torch's restricted reader, which refuses everything but tensors and plain
    containers.

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
    except Exception as error:  # damage makes the unpickler fail in any way
        raise InputError(
            f"{path} must be a state dict of tensors (or end in .safetensors); it holds other objects, which are "
            f"not loaded because loading them can run code: {(str(error).splitlines() or ['no content'])[0]}"
        ) from error


def load_weights(network: nn.Module, path: Path, *, key: str = "", names: Sequence[str] = ()) -> tuple[str, ...]:
    """Fill ``network``, whose classifier is off already, from a file; by name or, where no name agrees, by order.

    The names may stand under any prefix (``module.``, ``backbone.``), and the state dict under any key of a
    checkpoint. Of several that fit, averaged weights are preferred (``state_dict_ema``, ``model_ema``), then
    ``state_dict``, then ``model``. A classifier in the file, of whatever size, is left out.

    Other code bases hold the same network under other names. If the shapes are equal, in order, and so is the last
    part of each name (``weight``, ``running_mean``), the tensors of a state dict are taken one by one; anything less
    certain is an error.

    Args:
        network: to fill.
        path: a ``.safetensors`` file, or a state dict or checkpoint written by ``torch.save``.
        key: where in the file: a key, a prefix of the names, or both with a dot between; empty: where they are found.
        names: of the network's tensors in order, with those of the classifier that is off; empty: it never had one.

    Returns:
        What to say of it, where there was something to choose.

    Raises:
        ValueError: neither the names nor the shapes fit, the first difference is named; or several places fit, and
            none of them is to be preferred.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "w.pth"
        >>> torch.save({"state_dict_ema": {"module.weight": torch.ones(1, 2)}}, file)
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> load_weights(layer, file)
        ('backbone weights: state_dict_ema.module of w.pth',)
        >>> layer.weight.tolist()
        [[1.0, 1.0]]
    """
    path, own = user_path(path), network.state_dict()
    names = list(names or own)
    groups = dict(_groups(_read(path)))
    if not groups:
        raise InputError(f"{path} must hold a state dict (names and tensors), found no tensors")
    found = {place: state for where, group in groups.items() for place, state in _places(where, group, own)}
    by_name = _under(key, found)
    if by_name:
        place = _preferred(path, by_name)
        state = _fitted(path, network, by_name[place], own, names)
        said = f"backbone weights: {place} of {path.name}" if place else ""
    else:
        candidates = _under(key, groups)
        if not candidates:
            raise InputError(f"{path} has no weights of this network under {key!r}; {_listed(found or groups)}")
        place, state = _by_order(path, network, candidates, own, names)
        said = f"backbone weights: {place or 'all'} of {path.name}, taken by order, as no name is that of the network"
    try:
        network.load_state_dict(state, strict=False)  # only counters can be missing
    except RuntimeError as error:
        raise InputError(f"{path} does not fit {type(network).__name__}: {error}") from error
    return (said,) if said else ()


def _groups(content: Any, where: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each mapping that holds tensors, and its place in the file."""
    if not isinstance(content, Mapping):
        return
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield where, tensors
    for name, value in content.items():
        yield from _groups(value, f"{where}.{name}".lstrip("."))


def _needed(own: Mapping[str, Tensor]) -> list[str]:
    return [name for name in own if not name.endswith(_COUNTER)]


def _places(
    where: str, group: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each prefix under which the group has all names of the network, as a place, with what is under it."""
    needed = _needed(own)
    for name in group:
        if name != needed[0] and not name.endswith(f".{needed[0]}"):
            continue
        prefix = name.removesuffix(needed[0])
        if all(prefix + one in group for one in needed):
            state = {one.removeprefix(prefix): group[one] for one in group if one.startswith(prefix)}
            yield f"{where}.{prefix}".strip("."), state


def _preferred(path: Path, places: Iterable[str]) -> str:
    def parts(place: str) -> list[str]:
        return re.split(r"[._]", place)

    places = list(places)
    for better in (
        [place for place in places if _AVERAGED.intersection(parts(place))],
        [place for place in places if place == ""],
        [place for place in places if place.split(".")[0] == "state_dict"],
        [place for place in places if place.split(".")[0] == "model"],
        places,  # any, or none of which is the better
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
    """What the network takes of a state that has all its names."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    more = _more(state, own, names)
    if convert is not None and (more or any(state[name].shape != own[name].shape for name in _needed(own))):
        state = dict(convert(dict(state), network))  # timm's: positions for another size of the images
        more = _more(state, own, names)
    if more:
        raise InputError(
            f"{path} does not fit {type(network).__name__}: it holds all of its {len(own)} tensors and "
            f"{len(more)} more (first {more[0]!r}), so it is of a larger network; take the backbone that it was "
            "trained with"
        )
    return {name: tensor for name, tensor in state.items() if name in own}


def _more(state: Mapping[str, Tensor], own: Mapping[str, Tensor], names: Sequence[str]) -> list[str]:
    """Names of neither the network nor a head."""
    off = tuple(f"{name.rpartition('.')[0]}." for name in names if name not in own)
    return [
        name
        for name in state
        if name not in own
        and name.split(".")[0] not in _HEADS
        and not name.endswith(_COUNTER)
        and not name.startswith(off)
    ]


def _by_order(
    path: Path,
    network: nn.Module,
    groups: Mapping[str, Mapping[str, Tensor]],
    own: Mapping[str, Tensor],
    names: Sequence[str],
) -> tuple[str, dict[str, Tensor]]:
    """The place whose tensors are those of the network under other names, and these under its own."""
    pairs = {place: _pairs(group, own, names) for place, group in groups.items()}
    fitting = [place for place, paired in pairs.items() if paired]
    if not fitting or path.suffix == ".safetensors":  # which keeps its tensors in an order of its own
        place = max(groups, key=lambda place: len(set(groups[place]) & set(own)))
        missing = sorted(set(_needed(own)) - set(groups[place]))
        raise InputError(
            f"{path} does not fit {type(network).__name__}: it holds {len(groups[place])} tensors, expected "
            f"{len(own)}; {len(missing)} of the expected names are missing (first {missing[:1]}), under any prefix, "
            f"and by order they do not fit either; {_listed(groups)}"
        )
    place = _preferred(path, fitting)
    for mine, theirs in pairs[place]:
        if mine.rpartition(".")[2] != theirs.rpartition(".")[2]:
            raise InputError(
                f"{path} does not fit {type(network).__name__}: no name agrees, and by order {theirs!r} would be "
                f"{mine!r}; rename its tensors to those of the network"
            )
    return place, {mine: groups[place][theirs] for mine, theirs in pairs[place]}


def _pairs(group: Mapping[str, Tensor], own: Mapping[str, Tensor], names: Sequence[str]) -> list[tuple[str, str]]:
    """Names of the network and of the group by order, with and without classifier; none if the shapes differ."""
    counted = any(name.endswith(_COUNTER) for name in group)
    for order in (names, list(own)):
        order = [name for name in order if counted or not name.endswith(_COUNTER)]
        if len(order) == len(group) and not set(order) & set(group):
            pairs = [(mine, theirs) for mine, theirs in zip(order, group, strict=True) if mine in own]
            complete = set(_needed(own)) <= {mine for mine, _ in pairs}
            if complete and all(own[mine].shape == group[theirs].shape for mine, theirs in pairs):
                return pairs
    return []


def _under(key: str, places: Mapping[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    return {place: state for place, state in places.items() if not key or place == key or place.startswith(f"{key}.")}


def _listed(places: Iterable[str]) -> str:
    shown = [repr(place) for place in places if place][:8]
    return f"model.weights_key may be {', '.join(shown)}" if shown else "its tensors stand under no key"


PATIENCE = 6.0
"""Seconds until a server is taken not to answer."""


@contextmanager
def at_once() -> Iterator[None]:
    """Within it the hub answers, or what is not in its cache is missing at once.

    Left to itself, the hub's client asks for each of several files six times, with growing pauses: a minute and more.
    """
    before = constants.HF_HUB_OFFLINE
    if not before:
        constants.HF_HUB_OFFLINE = not answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def answers(address: str) -> bool:
    """Whether a server answers, be it with an error, within :data:`PATIENCE`, looking up its name included.

    Example:
        >>> answers("http://127.0.0.1:9")
        False
    """
    found: queue.Queue[bool] = queue.Queue()
    threading.Thread(target=lambda: found.put(_answers(address)), daemon=True).start()
    try:
        return found.get(timeout=PATIENCE)
    except queue.Empty:
        return False


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # it is there; the client has certificates of its own
    except OSError:
        return False
    return True

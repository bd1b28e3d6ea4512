"""What is compared: losses by name, each with the parameters that are searched for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor.losses.pml import BASELINES
from polyanchor.training.config import Config
from polyanchor.training.config_file import change_config
from polyanchor.training.loss_config import MultiProxyAnchor

FAMILY = ("class", "data", "mixed")
KNOWN = (*FAMILY, *BASELINES)
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Range:
    """Values that a search may take, both ends included; with ``log`` evenly in their logarithm."""

    low: float
    high: float
    log: bool = False


_SPACES: Mapping[str, Mapping[str, Range]] = MappingProxyType(
    {
        "multi-proxy-anchor": {"alpha": Range(8, 64, True), "delta": Range(0, 0.3), "gamma": Range(0.02, 0.5, True)},
        "proxy-nca": {"scale": Range(1, 30, True)},
        "normsoftmax": {"temperature": Range(0.02, 0.2, True)},
        "softtriple": {
            "scale": Range(5, 60, True),
            "gamma": Range(0.02, 0.5, True),
            "margin": Range(0, 0.3),
            "merging": Range(0, 0.5),
        },
        "arcface": {"margin": Range(5, 45), "scale": Range(8, 100, True)},
        "subcenter-arcface": {"margin": Range(5, 45), "scale": Range(8, 100, True)},
        "proxy-anchor": {"alpha": Range(8, 64, True), "delta": Range(0, 0.3)},
        "multi-similarity": {
            "alpha": Range(0.5, 10, True),
            "beta": Range(10, 100, True),
            "base": Range(0.2, 0.9),
            "epsilon": Range(0.02, 0.3, True),
        },
        "supcon": {"temperature": Range(0.02, 0.5, True)},
        "triplet": {"margin": Range(0.02, 0.5, True)},
        "contrastive": {"positive": Range(0, 0.4), "negative": Range(0.3, 1.3)},
    }
)
_RATE = 10.0  # the learning rate is searched from a tenth to ten times the configuration's
_PROXY_MULTIPLES = Range(1, 300, True)


@dataclass(frozen=True)
class Method:
    """One line of a comparison.

    Attributes:
        label: its name in tables and folders.
        settings: what it changes in the common configuration.
    """

    label: str
    settings: tuple[str, ...]

    def config(self, base: Config) -> Config:
        """The common configuration with this method's loss."""
        return change_config(base, self.settings)

    def space(self, base: Config) -> dict[str, Range]:
        """What is searched: the learning rate, the proxies' multiple of it, the loss's own parameters.

        What the method sets itself is not searched, nor is a parameter without effect (the width of the assignment
        with a single centre).
        """
        config = self.config(base)
        lr, loss = base.optim.lr, config.loss
        found = {"optim.lr": Range(lr / _RATE, lr * _RATE, True)}
        if isinstance(loss, MultiProxyAnchor) or BASELINES[loss.name].weights:
            found["optim.proxy_multiple"] = _PROXY_MULTIPLES
        alone = getattr(loss, "proxies_per_class", 2) == 1
        found |= {
            f"loss.{name}": values
            for name, values in _SPACES[loss.name].items()
            if not (alone and name in ("gamma", "merging"))
        }
        own = {setting.partition("=")[0] for setting in self.settings}
        return {key: values for key, values in found.items() if key not in own}


def parse_method(text: str) -> Method:
    """``[LABEL:]NAME[,section.key=value ...]`` to a method.

    Args:
        text: NAME is ``class``, ``data`` or ``mixed`` for a member of the Multi Proxy Anchor family, or a baseline of
            :data:`polyanchor.losses.pml.BASELINES`.

    Raises:
        ValueError: an unknown name (the nearest is given), or a label that cannot be a folder's name.

    Example:
        >>> parse_method("one:class,loss.proxies_per_class=1")
        Method(label='one', settings=('loss.anchor=class', 'loss.proxies_per_class=1'))
        >>> parse_method("arcface")
        Method(label='arcface', settings=('loss.name=arcface',))
    """
    head, *settings = [part.strip() for part in text.split(",")]
    label, colon, name = head.rpartition(":")
    if name not in KNOWN:
        raise InputError(f"a method must be one of {', '.join(KNOWN)}, got {name!r}{_check.nearest(name, KNOWN)}")
    first = f"loss.anchor={name}" if name in FAMILY else f"loss.name={name}"
    label = label if colon else "-".join([name, *(setting.rpartition(".")[2].replace("=", "") for setting in settings)])
    if not _LABEL.fullmatch(label):
        raise InputError(
            f"the label of a method names its folder and may hold letters, digits, '.', '_' and '-', got {label!r}; "
            "write LABEL:NAME,section.key=value"
        )
    return Method(label, (first, *settings))


def parse_methods(texts: Sequence[str]) -> tuple[Method, ...]:
    """Several methods; ``all`` stands for every known name.

    Raises:
        ValueError: two methods of one label.

    Example:
        >>> len(parse_methods(["all", "one:class,loss.proxies_per_class=1"]))
        14
    """
    methods = [parse_method(name) for text in texts for name in (KNOWN if text == "all" else (text,))]
    labels = [method.label for method in methods]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise InputError(f"two methods are called {twice!r}; write LABEL:NAME,... to tell them apart")
    return tuple(methods)

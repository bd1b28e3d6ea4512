"""TOML files and ``--set section.key=value`` to a :class:`Config`, and back."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._io import user_path
from polyanchor.config.schema import LOSSES, Config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


ALIASES = {
    "learning_rate": "optim.lr",
    "lr": "optim.lr",
    "wd": "optim.weight_decay",
    "weight_decay": "optim.weight_decay",
    "scheduler": "optim.schedule",
    "warmup": "optim.warmup_epochs",
    "batch_size": "batches.classes_per_batch (times batches.samples_per_class)",
    "num_epochs": "run.epochs",
    "max_epochs": "run.epochs",
    "epochs": "run.epochs",
    "seed": "run.seed",
    "device": "run.accelerator",
    "gpus": "run.devices",
    "num_workers": "data.workers",
    "workers": "data.workers",
    "backbone": "model.backbone",
    "arch": "model.backbone",
    "pretrained": "model.weights",
    "weights": "model.weights",
    "checkpoint": "model.weights",
    "dim": "model.embedding_dim",
    "embedding_size": "model.embedding_dim",
    "embedding_dim": "model.embedding_dim",
    "size": "images.size",
    "image_size": "images.size",
    "img_size": "images.size",
    "dataset": "data.source",
    # names that were in use before the first release
    "head_multiple": "optim.head_lr_mult",
    "proxy_multiple": "optim.proxy_lr_mult",
    "clip_at": "optim.clip_value",
    "proxy_length": "optim.renormalize_proxies = true or false",
    "select": "run.monitor",
    "kind": "batches.sampler",
    "classes": "batches.classes_per_batch",
    "images": "batches.samples_per_class",
    "piece": "batches.micro_batch_size",
    "merging": "loss.center_reg",
    "negative_share": "loss.negative_sample_rate",
}
"""What other programs call a key, a key without its section, or an earlier name, and where it is here."""


class ConfigError(InputError):
    """The configuration is not valid; one line for each fault."""


def load_config(path: Path | None = None, settings: Sequence[str] = ()) -> Config:
    """The defaults, overridden by a TOML file, overridden by ``section.key=value`` settings.

    Args:
        path: a TOML file, or None for the defaults alone.
        settings: for example ``["loss.anchor=data", "run.epochs=5"]``. The value is read as TOML where that
            succeeds and as plain text where not, so quotes are optional.

    Raises:
        ConfigError: an unknown key (the nearest known one is named), a value of the wrong kind, or no TOML.

    Example:
        >>> load_config(settings=["loss.anchor=data", "run.k=[1, 10]"]).run.k
        (1, 10)
    """
    raw: dict[str, Any] = {}
    if path is not None:
        path = user_path(path)
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows editors begin a file with a mark
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return _validated(raw, settings, path)


def change_config(config: Config, settings: Sequence[str]) -> Config:
    """Another configuration: ``section.key=value`` settings over a given one.

    With another ``loss.name`` the keys of the loss begin at that loss's own defaults.

    Example:
        >>> change_config(Config(), ["loss.name=arcface", "loss.scale=30"]).loss.margin
        28.6
    """
    raw = config.model_dump(mode="json")
    names = [_value(text.strip()) for key, _, text in (part.partition("=") for part in settings) if key == "loss.name"]
    if names and names[-1] != config.loss.name:
        raw["loss"] = {}
    return _validated(raw, settings)


def with_batch_size(config: Config, items: int) -> Config:
    """A batch of so many items, in pieces of the batch as it was configured: that is what fits into memory.

    It has more classes, each with ``batches.samples_per_class`` items as before. ``batches.micro_batch_size`` stays if
    it is set.

    Args:
        config: whose batch is changed.
        items: of the new batch; a multiple of ``batches.samples_per_class``.

    Raises:
        ConfigError: ``items`` is no such multiple.

    Example:
        >>> with_batch_size(Config(), 480).batches
        Batches(kind='balanced', classes=120, images=4, piece=120)
    """
    batches = config.batches
    classes, rest = divmod(items, batches.samples_per_class)
    if rest or classes < 1:
        raise ConfigError(
            f"--batch-size must be a multiple of batches.samples_per_class = {batches.samples_per_class}, got {items}; "
            f"take {max(classes, 1) * batches.samples_per_class}"
        )
    piece = batches.micro_batch_size or batches.classes_per_batch * batches.samples_per_class
    return change_config(
        config, [f"batches.classes_per_batch={classes}", f"batches.micro_batch_size={piece if piece < items else 0}"]
    )


def dump_config(config: Config) -> str:
    """The resolved configuration as TOML, every key written out.

    Example:
        >>> "epochs = 20" in dump_config(Config())
        True
    """
    return tomli_w.dumps(config.model_dump(mode="json"))


def _validated(raw: dict[str, Any], settings: Sequence[str], path: Path | None = None) -> Config:
    for setting in settings:
        key, equals, text = setting.partition("=")
        section, dot, name = key.strip().partition(".")
        if not (equals and dot and name):
            raise ConfigError(f"--set takes section.key=value, got {setting!r}; {_hint(key.strip())}")
        if not isinstance(raw.setdefault(section, {}), dict):
            raise ConfigError(f"{section} is a section of keys, got {raw[section]!r}")
        raw[section][name] = _value(text.strip())
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        asked = {setting.partition("=")[0].strip() for setting in settings}
        lines = [
            f"{path}: {_explain(fault)}" if path and not asked & _keys(fault) else _explain(fault)
            for fault in error.errors()
        ]
        raise ConfigError("\n".join(lines)) from error


def _keys(fault: Mapping[str, Any]) -> set[str]:
    """The keys that a fault may be about: a loss's name stands between its section and its key."""
    where = [str(part) for part in fault["loc"]]
    return {".".join(where[:2]), ".".join(where[:1] + where[2:3])}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _explain(fault: Mapping[str, Any]) -> str:
    where = [str(part) for part in fault["loc"]]
    loss = LOSSES.get(where.pop(1)) if where[:1] == ["loss"] and len(where) > 1 else None
    key = ".".join(where)
    if fault["type"] == "union_tag_invalid":
        got = str(fault["ctx"]["tag"])
        return f"{key}.name must be one of {', '.join(LOSSES)}, got {got!r}{_check.nearest(got, list(LOSSES))}"
    if fault["type"] != "extra_forbidden":
        got = "" if fault["type"] == "value_error" else f", got {fault['input']!r}"
        near = ""
        if fault["type"] == "literal_error":
            near = _check.nearest(str(fault["input"]), re.findall("'([^']*)'", fault["ctx"]["expected"]))
        return f"{key + ': ' if key else ''}{fault['msg'].removeprefix('Value error, ')}{got}{near}"
    table = loss or (_section(where[0]) if len(where) > 1 else Config)
    known = list(table.model_fields)
    if loss is not None and any(where[-1] in other.model_fields for other in LOSSES.values()):
        return f"{key} has no meaning for loss.name={fault['loc'][1]!r}, whose keys are {', '.join(known)}"
    if where[-1] in ALIASES:  # whatever section it was looked for in
        return f"unknown key {key!r}; {_hint(where[-1])}"
    near = _check.nearest(key, [".".join([*where[:-1], name]) for name in known])
    return f"unknown key {key!r}{near}"


def _hint(name: str) -> str:
    return f"did you mean {ALIASES[name]}?" if name in ALIASES else "for example loss.anchor=data"


def _section(name: str) -> type[BaseModel]:
    annotation = Config.model_fields[name].annotation
    assert isinstance(annotation, type)  # every key of Config but loss is a Section
    assert issubclass(annotation, BaseModel)
    return annotation

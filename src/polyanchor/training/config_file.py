"""TOML files and ``--set section.key=value`` to a :class:`Config`, and back."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from polyanchor import _check
from polyanchor.training.config import Config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class ConfigError(ValueError):
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
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
    for setting in settings:
        key, equals, text = setting.partition("=")
        section, dot, name = key.strip().partition(".")
        if not (equals and dot and name):
            raise ConfigError(f"--set takes section.key=value, got {setting!r}; for example loss.anchor=data")
        if not isinstance(raw.setdefault(section, {}), dict):
            raise ConfigError(f"{section} is a section of keys, got {raw[section]!r}")
        raw[section][name] = _value(text.strip())
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(fault) for fault in error.errors())) from error


def dump_config(config: Config) -> str:
    """The resolved configuration as TOML, every key written out.

    Example:
        >>> "epochs = 20" in dump_config(Config())
        True
    """
    return tomli_w.dumps(config.model_dump(mode="json"))


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(fault: Mapping[str, Any]) -> str:
    where = [str(part) for part in fault["loc"]]
    key = ".".join(where)
    if fault["type"] != "extra_forbidden":
        got = "" if fault["type"] == "value_error" else f", got {fault['input']!r}"
        return f"{key + ': ' if key else ''}{fault['msg'].removeprefix('Value error, ')}{got}"
    near = _check.nearest(key, [".".join([*where[:-1], name]) for name in _known(where[:-1])])
    return f"unknown key {key!r}{near}"


def _known(section: Sequence[str]) -> Sequence[str]:
    model: type[BaseModel] = Config
    for part in section:
        annotation = model.model_fields[part].annotation
        assert isinstance(annotation, type)  # every key of Config is a Section
        assert issubclass(annotation, BaseModel)
        model = annotation
    return list(model.model_fields)

"""TOML files and ``section.key=value`` settings to a :class:`Config`, and back."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import tomli_w
from pydantic import ValidationError

from polyanchor._errors import InputError, nearest
from polyanchor._io import user_path
from polyanchor.config.schema import LOSSES, Config, MultiProxyAnchor, Section
from polyanchor.datasets.spec import source_spec

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
    "proxy_length": "optim.renormalize_proxies",
    "select": "run.monitor",
    "kind": "batches.sampler",
    "classes": "batches.classes_per_batch",
    "images": "batches.samples_per_class",
    "piece": "batches.micro_batch_size",
    "merging": "loss.center_reg",
    "negative_share": "loss.negative_sample_rate",
}
"""Other programs' names of a key, keys without their section, and earlier names -> the key."""

SHORTHANDS = {
    "loss": "loss.loss",
    "batch_size": "batches.batch_size",
    "image_size": "images.image_size",
    "device": "run.device",
}
"""Flags that set several keys, or one by another name -> the setting that :func:`load_config` takes for them."""

_ANCHORS: tuple[str, ...] = get_args(MultiProxyAnchor.model_fields["anchor"].annotation)


class ConfigError(InputError):
    """The configuration is not valid; one line for each fault."""


def load_config(path: Path | None = None, settings: Sequence[str] = ()) -> Config:
    """The defaults, overridden by a TOML file, overridden by ``section.key=value`` settings.

    Four more settings are shorthands: ``loss.loss`` (``class``, ``data``, ``mixed`` or a baseline's name),
    ``batches.batch_size`` (items of a batch), ``images.image_size`` (with ``images.resize`` in the same proportion)
    and ``run.device``. With another loss, the keys of the loss begin at that loss's own defaults.

    Args:
        path: a TOML file, or None for the defaults alone.
        settings: for example ``["loss.anchor=data", "run.epochs=5"]``. The value is read as TOML where that
            succeeds and as plain text where not or where the key is a text, so quotes are optional. Of several values
            of a key the last counts.

    Raises:
        ConfigError: an unknown key (the message names the nearest one), a value of the wrong kind, or no TOML.

    Example:
        >>> load_config(settings=["loss.anchor=data", "run.k=[1, 10]"]).run.k
        (1, 10)
        >>> load_config(settings=["batches.batch_size=480"]).batches.classes_per_batch
        120
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
    """Another configuration: settings, as for :func:`load_config`, over a given one.

    Example:
        >>> change_config(Config(), ["loss.name=arcface", "loss.scale=30"]).loss.margin
        28.6
    """
    return _validated(config.model_dump(mode="json"), settings)


def dump_config(config: Config) -> str:
    """The resolved configuration as TOML, every key written out.

    Example:
        >>> "epochs = 20" in dump_config(Config())
        True
    """
    return tomli_w.dumps(config.model_dump(mode="json"))


def explain_config(config: Config) -> str:
    """The configuration as TOML, with a comment above each key: what it is, its flag, its choices.

    Example:
        >>> lines = explain_config(Config()).splitlines()
        >>> lines[lines.index("workers = 0") - 1]
        '# --workers'
    """
    lines = [
        "# Read by --config FILE.toml; each key is also a flag.",
        "# A key that is left out has the default that polyanchor config prints without flags.",
    ]
    for name, values in config.model_dump(mode="json").items():
        section: Section = getattr(config, name)
        lines += ["", f"# {(section.__doc__ or '').splitlines()[0]}", f"[{name}]"]
        for key, field in type(section).model_fields.items():
            choices = list(LOSSES) if (name, key) == ("loss", "name") else _choices(field.annotation)
            flag = f"{_flag(name, key)} {' | '.join(choices)}".rstrip()
            lines += [f"# {field.description or 'Name of the loss.'}", f"# {flag}", f"{key} = {_toml(values[key])}"]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").rstrip("\n")


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _flag(section: str, key: str) -> str:
    """The shortest flag of a key."""
    full = f"{section}.{key}"
    other = {"loss.name": "loss", "loss.anchor": "loss", "images.size": "image_size", "run.accelerator": "device"}
    short = other.get(full) or (key if sum(known.endswith(f".{key}") for known in set(_keys())) == 1 else full)
    return f"--{short}" if short == full else f"--{short.replace('_', '-')}"


def _keys() -> Iterator[str]:
    """Every ``section.key``, those of all losses too."""
    for name in Config.model_fields:
        for table in LOSSES.values() if name == "loss" else (_section(name),):
            yield from (f"{name}.{key}" for key in table.model_fields)


def key_of_flag(flag: str, options: Sequence[str] = ()) -> str:
    """The setting that a flag changes: the key that it names in full, or a key that one section alone has.

    Args:
        flag: for example ``--optim.lr``, ``--lr`` or ``--val-share``.
        options: the other options of the command, for the message.

    Raises:
        ConfigError: no such key, or a key of several sections.

    Example:
        >>> key_of_flag("--optim.lr"), key_of_flag("--val-share"), key_of_flag("--batch-size")
        ('optim.lr', 'data.val_share', 'batches.batch_size')
    """
    name = flag.removeprefix("--").replace("-", "_")
    if name in SHORTHANDS:
        return SHORTHANDS[name]
    if "." in name.strip("."):  # its value is checked with it
        return name
    keys = sorted(set(_keys()))
    full = [key for key in keys if key.endswith(f".{name}")]
    if len(full) == 1:
        return full[0]
    if full:
        raise ConfigError(f"{flag} may be {' or '.join(f'--{key}' for key in full)}; write one of them")
    if name in ALIASES:
        raise ConfigError(f"No such option: {flag}; did you mean --{ALIASES[name].partition(' ')[0]}?")
    bare = [f"--{key.partition('.')[2].replace('_', '-')}" for key in keys]
    shorthands = [f"--{key.replace('_', '-')}" for key in SHORTHANDS]
    raise ConfigError(f"No such option: {flag}{nearest(flag, [*options, *bare, *shorthands])}")


def is_switch(key: str) -> bool:
    """Whether the values of a ``section.key`` are true and false."""
    return bool in (_annotation(key), *get_args(_annotation(key)))


def join_lists(settings: Sequence[str]) -> tuple[str, ...]:
    """The settings, with those of a key that is a list, if it is given several times, as one.

    Example:
        >>> join_lists(["run.k=1", "optim.lr=1", "run.k=[5, 10]", "optim.lr=2"])
        ('optim.lr=1', 'optim.lr=2', 'run.k=[1, 5, 10]')
    """
    pairs = [setting.partition("=")[::2] for setting in settings]
    joined: dict[str, list[Any]] = {}
    for key, text in pairs:
        if _is_list(key):
            value = _value(key, text.strip())
            joined.setdefault(key, []).extend(value if isinstance(value, list) else [value])
    others = (f"{key}={text}" for key, text in pairs if key not in joined)
    return (*others, *(f"{key}={_toml(values)}" for key, values in joined.items()))


def _annotation(key: str) -> Any:
    """Type of a ``section.key``; None if there is no such key."""
    section, _, name = key.partition(".")
    tables = LOSSES.values() if section == "loss" else [_section(section)] if section in Config.model_fields else []
    return next((table.model_fields[name].annotation for table in tables if name in table.model_fields), None)


def _is_list(key: str) -> bool:
    annotation = _annotation(key)
    return get_origin(annotation) is tuple and Ellipsis in get_args(annotation)


def _validated(raw: dict[str, Any], settings: Sequence[str], path: Path | None = None) -> Config:
    changes = _parsed(settings)
    for section in {key.partition(".")[0] for key in changes}:
        if not isinstance(raw.setdefault(section, {}), dict):
            raise ConfigError(f"{section} is a section of keys, got {raw[section]!r}")
    changes = _expanded(changes, raw)
    family = Config().loss.name
    if "loss.name" in changes and changes["loss.name"] != raw["loss"].get("name", family):
        raw["loss"] = {}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        raw[section][name] = value
    if isinstance(raw.get("data"), dict):
        for name in {"source", "test"} & set(raw["data"]):
            if isinstance(raw["data"][name], (str, int)) and raw["data"][name] != "":
                raw["data"][name] = source_spec(str(raw["data"][name]))
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        lines = [
            f"{path}: {_explain(fault)}" if path and not _keys_of(fault) & set(changes) else _explain(fault)
            for fault in _one_for_each_key(error)
        ]
        raise ConfigError("\n".join(lines)) from error


def _parsed(settings: Sequence[str]) -> dict[str, Any]:
    """Key -> value."""
    changes = {}
    for setting in settings:
        key, equals, text = (part.strip() for part in setting.partition("="))
        if not (equals and "." in key and not key.endswith(".")):
            hint = f"did you mean {ALIASES[key]}?" if key in ALIASES else "for example loss.anchor=data"
            raise ConfigError(f"a setting is section.key=value, got {setting!r}; {hint}")
        changes[key] = _value(key, text)
    return changes


def _value(key: str, text: str) -> Any:
    if _is_list(key) and "," in text and not text.startswith("["):
        return [_value("", part.strip()) for part in text.split(",")]
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    # a folder may be called 2024-05-01 or 1_000
    return text if _annotation(key) is str and not isinstance(value, str) else value


def _expanded(changes: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """The changes with the :data:`SHORTHANDS` written out."""
    plain = {key: value for key, value in changes.items() if key not in SHORTHANDS.values()}

    def current(key: str, given: Mapping[str, Any] = plain) -> Any:
        section, _, name = key.partition(".")
        default = getattr(getattr(Config(), section), name)
        value = given.get(key, raw.get(section, {}).get(name, default))
        return value if value and isinstance(value, type(default)) else default  # a wrong one is refused later

    for flag, shorthand in SHORTHANDS.items():
        if shorthand not in changes:
            continue
        option = f"--{flag.replace('_', '-')}"
        for key, value in _EXPAND[flag](changes[shorthand], current).items():
            if plain.setdefault(key, value) != value and key != "images.resize":
                raise ConfigError(
                    f"{option} sets {key} to {value!r}, which is also set to {plain[key]!r}; leave one out"
                )
    return plain


def _loss_keys(value: Any, current: Callable[..., Any]) -> dict[str, Any]:
    names = [*_ANCHORS, *LOSSES]
    if value not in names:
        raise ConfigError(f"--loss must be one of {', '.join(names)}, got {value!r}{nearest(value, names)}")
    return {"loss.name": value} if value in LOSSES else {"loss.name": MultiProxyAnchor().name, "loss.anchor": value}


def _batch_keys(value: Any, current: Callable[..., Any]) -> dict[str, Any]:
    items, samples = _whole("--batch-size", value), current("batches.samples_per_class")
    if items % samples and current("batches.sampler") == "shuffled":
        return {"batches.classes_per_batch": items, "batches.samples_per_class": 1}
    classes, rest = divmod(items, samples)
    if rest or not classes:
        raise ConfigError(
            f"--batch-size must be a multiple of batches.samples_per_class = {samples}, got {items}; "
            f"take {max(classes, 1) * samples}"
        )
    return {"batches.classes_per_batch": classes}


def _image_keys(value: Any, current: Callable[..., Any]) -> dict[str, Any]:
    size = _whole("--image-size", value)
    resize = round(size * current("images.resize", {}) / current("images.size", {}))
    return {"images.size": size, "images.resize": resize}


def _device_keys(value: Any, current: Callable[..., Any]) -> dict[str, Any]:
    kind, colon, number = str(value).partition(":")
    if colon:
        raise ConfigError(
            f"--device takes no number, got {value!r}; write CUDA_VISIBLE_DEVICES={number} before the command and "
            f"--device {kind}"
        )
    return {"run.accelerator": value}


_EXPAND: Mapping[str, Callable[[Any, Callable[..., Any]], dict[str, Any]]] = {
    "loss": _loss_keys,
    "batch_size": _batch_keys,
    "image_size": _image_keys,
    "device": _device_keys,
}


def _whole(option: str, value: Any) -> int:
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"{option} must be a whole number of at least 1, got {value!r}")
    return value


def _one_for_each_key(error: ValidationError) -> list[dict[str, Any]]:
    """The faults; of a key that takes a number or a word the one about the number, which names the word too."""
    faults: dict[tuple[Any, ...], dict[str, Any]] = {}
    for details in error.errors():
        fault: dict[str, Any] = dict(details)
        branch = str(fault["loc"][-1]) if fault["loc"] else ""
        if branch in ("constrained-float", "bool") or branch.startswith("literal["):
            fault["loc"] = fault["loc"][:-1]
        if fault["loc"] in faults and branch.startswith("literal["):
            faults[fault["loc"]]["msg"] += f", or {fault['ctx']['expected']}"
        faults.setdefault(fault["loc"], fault)
    return list(faults.values())


def _keys_of(fault: Mapping[str, Any]) -> set[str]:
    """The keys that a fault may be about: a loss's name stands between its section and its key."""
    parts = [str(part) for part in fault["loc"]]
    return {".".join(parts[:2]), ".".join(parts[:1] + parts[2:3])}


def _explain(fault: Mapping[str, Any]) -> str:
    parts = [str(part) for part in fault["loc"]]
    loss = LOSSES.get(parts.pop(1)) if parts[:1] == ["loss"] and len(parts) > 1 else None
    key = ".".join(parts)
    if fault["type"] == "union_tag_invalid":
        got = str(fault["ctx"]["tag"])
        return f"{key}.name must be one of {', '.join(LOSSES)}, got {got!r}{nearest(got, list(LOSSES))}"
    if fault["type"] != "extra_forbidden":
        got = "" if fault["type"] == "value_error" else f", got {fault['input']!r}"
        near = ""
        if fault["type"] == "literal_error":
            near = nearest(fault["input"], re.findall("'([^']*)'", fault["ctx"]["expected"]))
        return f"{key + ': ' if key else ''}{fault['msg'].removeprefix('Value error, ')}{got}{near}"
    table = loss or (_section(parts[0]) if len(parts) > 1 else Config)
    names = list(table.model_fields)
    if loss is not None and any(parts[-1] in other.model_fields for other in LOSSES.values()):
        return f"{key} has no meaning for loss.name={fault['loc'][1]!r}, whose keys are {', '.join(names)}"
    if parts[-1] in ALIASES:  # whatever section it was looked for in
        return f"unknown key {key!r}; did you mean {ALIASES[parts[-1]]}?"
    return f"unknown key {key!r}{nearest(key, ['.'.join([*parts[:-1], name]) for name in names])}"


def _section(name: str) -> type[Section]:
    annotation = Config.model_fields[name].annotation
    assert isinstance(annotation, type)  # every key of Config but loss is a Section
    assert issubclass(annotation, Section)
    return annotation

"""Flags of the configuration: every key is one, of each command that takes a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer
from typer.core import TyperCommand

from polyanchor._errors import InputError, nearest

REPLACED = {
    "--effective-batch": "--batch-size",
    "--part": "--split",
    "--breadth": "--search-effort",
    "--against": "--reference",
}
"""Former option -> what it is called now."""

_SETTINGS = "polyanchor.settings"


class ConfigCommand(TyperCommand):
    """A command whose unknown options are keys of the configuration: ``--optim.lr 1e-4``, ``--val-share=0.1``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the keys out of the words, then parse the rest."""
        own = {name for param in self.get_params(ctx) for name in (*param.opts, *param.secondary_opts)}
        rest: list[str] = []
        settings: list[str] = []
        words = iter(args)
        for word in words:
            flag, equals, value = word.partition("=")
            if not flag.startswith("--") or flag in own:
                rest.append(word)
            elif word == "--" or ctx.resilient_parsing:  # the second: a shell asks how to complete the line
                rest += [word, *words]
            else:
                from polyanchor.config.loading import key_of_flag

                key = key_of_flag(flag, [name for name in own if name.startswith("--")])
                if not equals and (value := next(words, "--")).startswith("--"):
                    raise InputError(f"{flag} needs a value, for example {flag} 1, or {flag} true")
                settings.append(f"{key}={value}")
        ctx.meta[_SETTINGS] = settings
        return super().parse_args(ctx, rest)


def settings_of(context: typer.Context, named: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """The ``section.key=value`` settings of a command line.

    Args:
        context: of a :class:`ConfigCommand`.
        named: key -> value of the command's own options that are keys; None is not given.

    Raises:
        InputError: a key is given by both kinds of option.
    """
    settings: list[str] = context.meta[_SETTINGS]
    given = {key: value for key, value in (named or {}).items() if value is not None}
    for key in (setting.partition("=")[0] for setting in settings):
        if key in given:
            raise InputError(f"--{key} is given twice, the second time as a shorter option; leave one of them out")
    return (*(f"{key}={value}" for key, value in given.items()), *settings)


def require_no_toml(source: str | None, command: str) -> None:
    """Refuse a configuration file in the place of a data source or a run."""
    if source is not None and source.lower().endswith(".toml"):
        raise InputError(f"{source} is a configuration file; write polyanchor {command} --config {source}")


def refuse_replaced(words: Sequence[str]) -> None:
    """Name the present option where a former one stands."""
    for number, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option == "--set":
            setting = value if equals else "".join(words[number + 1 : number + 2])
            key, _, value = setting.partition("=")
            raise InputError(f"--set is gone; write --{key or 'section.key'} {value or 'VALUE'}")
        if option in REPLACED:
            raise InputError(f"{option} is called {REPLACED[option]} now")


def with_nearest(message: str) -> str:
    """The message of a wrong choice, with the nearest right one.

    Example:
        >>> with_nearest("'mixd' is not one of 'class', 'mixed'.")
        "'mixd' is not one of 'class', 'mixed'; did you mean 'mixed'?"
    """
    value, wrong, choices = message.partition(" is not one of ")
    near = nearest(value.rpartition(" ")[2].strip("'"), [part.strip("' .") for part in choices.split(",")])
    return f"{message.rstrip('.')}{near}" if wrong and near else message

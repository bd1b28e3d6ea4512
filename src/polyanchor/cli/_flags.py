"""Flags of the configuration: every key is one, of each command that takes a configuration."""

from __future__ import annotations

from collections import deque
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
        if ctx.resilient_parsing:  # a shell asks how to complete the line
            return super().parse_args(ctx, args)
        own = {
            name: param
            for param in self.get_params(ctx)
            for name in (*param.opts, *param.secondary_opts)
            if name.startswith("-")
        }
        rest: list[str] = []
        settings: list[tuple[str, str]] = []  # flag as it was typed, setting
        words = deque(args)
        while words and words[0] != "--":
            flag, equals, value = (word := words.popleft()).partition("=")
            if not flag.startswith("--") or flag in own:
                rest.append(word)
                if not equals and flag in own and not getattr(own[flag], "is_flag", False):
                    rest.append(_next_value(flag, words))
                continue
            from polyanchor.config.loading import is_switch, key_of_flag

            options = [name for name in own if name.startswith("--")]
            if flag.startswith("--no-") and is_switch(key := _switched_off(flag)) and not equals:
                settings.append((flag, f"{key}=false"))
                continue
            key = key_of_flag(flag, options)
            if not equals and is_switch(key) and (not words or words[0].lower() not in ("true", "false")):
                value = "true"
            elif not equals:
                value = _next_value(flag, words)
            settings.append((flag, f"{key}={value.lower() if is_switch(key) else value}"))
        ctx.meta[_SETTINGS] = settings
        return super().parse_args(ctx, [*rest, *words])


def _switched_off(flag: str) -> str:
    """The key that ``--no-KEY`` names; empty if there is none."""
    from polyanchor.config.loading import ConfigError, key_of_flag

    try:
        return key_of_flag(flag.replace("--no-", "--", 1))
    except ConfigError:
        return ""


def _next_value(flag: str, words: deque[str]) -> str:
    if not words or words[0].startswith("--"):
        raise InputError(f"{flag} needs a value")
    return words.popleft()


def settings_of(context: typer.Context, named: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """The ``section.key=value`` settings of a command line.

    Args:
        context: of a :class:`ConfigCommand`.
        named: key -> value of the command's own options that are keys; None is not given.

    Raises:
        InputError: a key is given by both kinds of option.
    """
    given = {key: value for key, value in (named or {}).items() if value is not None}
    settings: list[str] = []
    for flag, setting in context.meta[_SETTINGS]:
        if setting.partition("=")[0] in given:
            raise InputError(f"{flag} sets what {_own_name(context, setting)} sets, too; leave one of them out")
        settings.append(setting)
    if settings:
        from polyanchor.config.loading import join_lists

        settings = list(join_lists(settings))
    return (*(f"{key}={value}" for key, value in given.items()), *settings)


def _own_name(context: typer.Context, setting: str) -> str:
    """How the command itself calls a key that it takes: the option or argument of the same name."""
    name = setting.partition("=")[0].rpartition(".")[2]
    params = {str(param.name): param for param in context.command.params}
    return params[name].opts[0] if name in params and params[name].opts[0].startswith("-") else "SOURCE"


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

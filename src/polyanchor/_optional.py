"""Imports that wait until they are needed: optional packages, and the public names of a page."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class MissingExtraError(ImportError):
    """An optional package is not installed; the message names the pip command that installs it."""


def load(module: str, extra: str) -> Any:
    """Import ``module``, which ``pip install 'polyanchor[extra]'`` provides.

    Example:
        >>> load("json", "train").loads("[1]")
        [1]
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != package:
            raise  # the package is there, and broken: its own message says more
        raise MissingExtraError(f"{package} is not installed; run: pip install 'polyanchor[{extra}]'") from error


def lazy_names(
    page: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package that imports its public names on first use.

    Args:
        page: ``__name__`` of the package.
        homes: module below the package -> names that it defines; ``""`` lists submodules.

    Example:
        >>> getattribute, _, names = lazy_names("json", {"decoder": ["JSONDecoder"]})
        >>> getattribute("JSONDecoder").__name__, names
        ('JSONDecoder', ['JSONDecoder'])
    """
    home = {name: module for module, names in homes.items() for name in names}

    def imported(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {page!r} has no attribute {name!r}")
        module = importlib.import_module(f"{page}.{home[name] or name}")
        value = getattr(module, name) if home[name] else module
        setattr(sys.modules[page], name, value)
        return value

    return imported, lambda: sorted({*vars(sys.modules[page]), *home}), sorted(home)

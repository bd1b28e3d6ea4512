"""Optional packages: imported where they are needed, with an error that names the pip command."""

from __future__ import annotations

import importlib
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

"""Errors of the input, as opposed to errors of the program: the command line exits with code 2 on these alone."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


class InputError(ValueError):
    """An argument, an option or a file is wrong; the message says what was expected, what came and what to do.

    The package raises no plain ``ValueError`` for bad input, so that a bug's ``ValueError`` is never called bad input.
    """


class InputTypeError(InputError, TypeError):
    """An argument is of the wrong type or dtype."""


def nearest(value: object, known: Sequence[str]) -> str:
    """``"; did you mean 'x'?"`` for the known name most like ``value``, or an empty string."""
    close = get_close_matches(str(value), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""

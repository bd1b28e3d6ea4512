"""Errors of the input, as opposed to errors of the program: the command line exits with code 2 on these alone."""

from __future__ import annotations


class InputError(ValueError):
    """An argument, an option or a file is wrong; the message says what was expected, what came and what to do.

    The package raises no plain ``ValueError`` for bad input, so that a bug's ``ValueError`` is never called bad input.
    """


class InputTypeError(InputError, TypeError):
    """An argument is of the wrong type or dtype."""

"""Errors that are the input's, and not the program's: the command line ends with exit code 2 on them alone."""

from __future__ import annotations


class InputError(ValueError):
    """An argument, an option or a file is wrong; the message says what was expected, what came and what to do.

    Every such error of the package is one of these, so that a ``ValueError`` of any other kind, a fault of the
    program or of a library, is never called bad input.
    """


class InputTypeError(InputError, TypeError):
    """An argument is of the wrong type or dtype."""

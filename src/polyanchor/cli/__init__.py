"""The command line: each command reads its arguments, calls one function and writes what it returns.

Exit codes: 0 done, 1 the job failed, 2 wrong usage or bad input.
"""

from __future__ import annotations

import sys

from polyanchor._extras import MissingExtraError, load


def main() -> None:
    """Entry point of the ``polyanchor`` command."""
    try:
        load("typer", "train")
        load("rich", "train")
    except MissingExtraError as error:
        print(f"polyanchor: {error}", file=sys.stderr)
        sys.exit(2)
    from polyanchor.cli.app import run

    sys.exit(run(sys.argv[1:]))

"""The command line: each command reads its arguments, calls one function and writes what it returns.

Exit codes: 0 done, 1 the job failed, 2 wrong usage or bad input.
"""

from __future__ import annotations

import os
import sys

from polyanchor._optional import MissingExtraError, load


def main() -> None:
    """Entry point of the ``polyanchor`` command."""
    try:
        load("typer", "train")
        load("rich", "train")
    except MissingExtraError as error:
        print(f"polyanchor: {error}", file=sys.stderr)
        sys.exit(2)
    from polyanchor.cli.app import run

    code = run(sys.argv[1:])
    if "polyanchor.distributed.comm" in sys.modules and ("WORLD_SIZE" in os.environ or "SLURM_PROCID" in os.environ):
        sys.modules["polyanchor.distributed.comm"].hard_exit(code)
    sys.exit(code)

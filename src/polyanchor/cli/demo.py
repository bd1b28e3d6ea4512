"""``polyanchor demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for images and run; must be new.")] = Path("demo"),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training digits.")] = 10,
) -> None:
    """Write scikit-learn's digits as an image folder, train on 0-4, retrieve among 5-9.

    Example: polyanchor demo --out demo
    """
    from polyanchor.cli._output import note, print_run
    from polyanchor.training.demo import run_demo

    run_demo(out, epochs=epochs, announce=note)
    print_run(out / "run", as_json=False)

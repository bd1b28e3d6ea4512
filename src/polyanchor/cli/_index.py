"""What the commands of an index have in common."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

INDEX: TypeAlias = Annotated[str, typer.Argument(metavar="INDEX", help="The index's folder; its collection's name.")]
STORE: TypeAlias = Annotated[
    str, typer.Option(metavar="qdrant:URL", help="Where the index is, if not in a folder: qdrant:http://HOST:6333.")
]
MODEL: TypeAlias = Annotated[
    Path | None,
    typer.Option(exists=True, file_okay=False, help="Folder of the index's model, if it is no longer where it was."),
]
ON_BAD: TypeAlias = Annotated[
    str, typer.Option(help="stop or skip: what an unreadable image does.", show_default="stop")
]
ROOT: TypeAlias = Annotated[
    Path | None, typer.Option(help="Folder that holds the benchmark data sets.", show_default="data")
]
PARTIAL: TypeAlias = Annotated[
    bool, typer.Option("--allow-partial", help="Accept a copy of a data set that is not complete.")
]
JSON: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
BREADTH: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1, help="How far hnsw (candidates) or ivf (lists) looks; more finds more.", show_default="fits the size"
    ),
]


def say_skipped(skipped: Sequence[str]) -> None:
    """The note about images that could not be read."""
    from polyanchor.cli._output import note
    from polyanchor.evaluation.evaluate import left_out

    if skipped:
        note(left_out(skipped))


def from_here(path: str | None) -> str:
    """A path as one would type it here.

    Example:
        >>> from_here(str(Path.cwd() / "photos" / "1.jpg")), from_here("digits#0/1"), from_here(None)
        ('photos/1.jpg', 'digits#0/1', '')
    """
    return "" if path is None else path.removeprefix(f"{Path.cwd()}{os.sep}")

"""A finished run to a folder that embedding-atlas and the TensorBoard projector open."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from polyanchor._io import user_path
from polyanchor.explore.projector import write_projector
from polyanchor.runs.embed_parts import open_rows, write_parquet

ATLAS = "embedding-atlas"


@dataclass(frozen=True)
class Explored:
    """What was written, and how to look at it.

    Attributes:
        parquet: the table.
        projector: the folder for TensorBoard.
        items: rows of the table.
        skipped: names of images that could not be read.
        commands: viewer -> the words of its command line.
    """

    parquet: Path
    projector: Path
    items: int
    skipped: tuple[str, ...]
    commands: dict[str, list[str]]


def explore_run(run: Path, out: Path, *, split: str = "test", settings: tuple[str, ...] = ()) -> Explored:
    """Embed a part of a run's data and write it for the viewers.

    Args:
        run: its folder.
        out: folder for ``embeddings.parquet`` and ``projector/``; both are replaced whole.
        split: see :func:`polyanchor.runs.embed_parts.open_rows`, as for the errors.
        settings: likewise.
    """
    rows, k, skipped = open_rows(run, split=split, settings=settings)
    out = user_path(out)
    out.mkdir(parents=True, exist_ok=True)
    parquet, projector = out / "embeddings.parquet", out / "projector"
    write_parquet(rows, parquet, k=k)
    write_projector(parquet, projector)
    pictures = [] if any(one.items.is_vectors for one in rows) else ["--image", "image"]
    commands = {
        ATLAS: [ATLAS, str(parquet), "--vector", "vector", *pictures],
        "tensorboard": ["tensorboard", "--logdir", str(projector)],
    }
    return Explored(parquet, projector, sum(len(one.items) for one in rows), skipped, commands)


def installed(program: str) -> str | None:
    """Path of a program on the search path, or beside this Python; None if it is in neither place."""
    return shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))

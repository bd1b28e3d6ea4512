"""Checkpoint files: written past the memory, replaced in one step, and read only if they are whole."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from polyanchor._errors import InputError
from polyanchor._files import replacing
from polyanchor.training.run_folder import RunFolder


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's writer gathers a checkpoint in memory, twice, before a byte is on the disk; this one does not."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write to another name, then replace."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            torch.save(checkpoint, file)


def to_resume_from(folder: RunFolder, announce: Callable[[str], None]) -> Path | None:
    """The checkpoint to go on from; None if none has been written yet.

    That is ``last.ckpt``. Where it is damaged, ``best.ckpt``: it was written in the same way, so the run ends as it
    would have ended; the epochs after it are done again, which is announced.

    Raises:
        ValueError: there are checkpoints, and none is whole.
    """
    damaged: list[str] = []
    for path in (folder.last, folder.best):
        if not path.is_file():
            continue
        reason = damage(path)
        if reason is None:
            if damaged:
                announce(f"{damaged[0]}; going on from {path}, what came after it is done again")
            return path
        damaged.append(f"{path} is damaged ({reason})")
    if damaged:
        raise InputError(
            f"{' and '.join(damaged)}, and there is no other checkpoint to go on from; put back a copy of it, or begin "
            f"anew by removing {folder.checkpoints}"
        )
    return None


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint's file, or None; reads all of it and compares its checksums."""
    try:
        with zipfile.ZipFile(path) as file:
            part = file.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        return str(error) or type(error).__name__
    return None if part is None else f"the checksum of {part} is wrong"

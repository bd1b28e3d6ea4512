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

_HELD = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "epoch", "global_step")


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
    reasons = {path: damage(path) for path in (folder.last, folder.best) if path.exists()}
    whole = [path for path, reason in reasons.items() if reason is None]
    damaged = [f"{path} is damaged ({reason})" for path, reason in reasons.items() if reason is not None]
    remedy = f"put back a copy of it, or begin anew by removing {folder.checkpoints}"
    if damaged and not whole:
        raise InputError(f"{' and '.join(damaged)}, and there is no other checkpoint to go on from; {remedy}")
    if reasons.get(folder.best) is not None:  # the training would find out at its end
        raise InputError(f"{damaged[0]}, and the weights of the best epoch are in it alone; {remedy}")
    if damaged:
        announce(f"{damaged[0]}; going on from {whole[0]}, what came after it is done again")
    return whole[0] if whole else None


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint's file, or None; reads all of it and compares its checksums."""
    try:
        with zipfile.ZipFile(path) as file:
            part = file.testzip()
        if part is not None:
            return f"the checksum of {part} is wrong"
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # both readers stumble over damage in more ways than they have errors for
        return (str(error).splitlines() or [type(error).__name__])[0]
    missing = [key for key in _HELD if not isinstance(held, dict) or key not in held]
    return f"it holds no {missing[0]}" if missing else None

"""Resuming: checkpoint files, and what must be unchanged for a run to go on as if it had not been interrupted."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from polyanchor._errors import InputError
from polyanchor._io import replacing
from polyanchor.config.schema import Config
from polyanchor.runs.folder import RunFolder
from polyanchor.types import Announce

# These do not change what is computed. Any other key is part of the optimizer's state, the order of the batches or the
# shape of the proxies, and a change would have no effect, or half of one.
CHANGEABLE = (
    "run.epochs",
    "run.threads",
    "run.accelerator",
    "run.devices",
    "run.nodes",
    "run.checkpoint_minutes",
    "data.workers",
    "data.root",
    "data.on_bad_image",
    "data.max_pixels",
    "data.on_changed",
)
_KEYS = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "epoch", "global_step")


def check_resume(folder: RunFolder, config: Config, split: dict[str, Any], *, trained: bool = True) -> bool:
    """Refuse to resume with another configuration or other data.

    Args:
        folder: of the run.
        config: of the resumed run.
        split: the present data, in the form of ``split.json``.
        trained: whether there is a checkpoint to go on from; if not, the contents of the items may have changed.

    Returns:
        Whether the contents of items have changed since the run was begun, and ``data.on_changed`` accepts it.

    Raises:
        ValueError: a key not in :data:`CHANGEABLE`, the items, their contents or the held-out classes have changed.
    """
    before, now = _flat(folder.read_config()), _flat(config)
    changed = [key for key in now if now[key] != before[key] and key not in CHANGEABLE]
    if changed:
        key = changed[0]
        raise InputError(
            f"a resumed run can change {', '.join(CHANGEABLE)}, got another {key}: {before[key]!r} before, "
            f"{now[key]!r} now; begin a new run for that"
        )
    if not folder.split.is_file():
        return False
    then = folder.read_split()
    same = all(then[key] == split[key] for key in ("fingerprint", "train_classes", "validation_classes"))
    if not same:
        raise InputError(
            f"the items of {split['source']} are not those that {folder.path} was begun with (names, labels or "
            "held-out classes differ); put the data back as it was, or begin a new run"
        )
    if not trained or then["contents"] == split["contents"]:
        return bool(then.get("changed", False))
    if config.data.on_changed == "stop":
        raise InputError(
            f"the items of {split['source']} have the names that they had when {folder.path} was begun, and other "
            f"contents (sizes of files, values of vectors); files changed since are listed by: find FOLDER -newer "
            f"{folder.split}. Put the data back as it was, begin a new run, or go on all the same with "
            "--on-changed accept"
        )
    return True


def _flat(config: Config) -> dict[str, Any]:
    return {
        f"{section}.{name}": value
        for section, part in config.model_dump(mode="json").items()
        for name, value in part.items()
    }


class CheckpointFiles(TorchCheckpointIO):
    """Writes checkpoints atomically, and without the two copies in memory that Lightning's writer makes."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            torch.save(checkpoint, file)


def to_resume_from(folder: RunFolder, announce: Announce) -> Path | None:
    """The checkpoint to go on from; None if none has been written yet.

    That is ``last.ckpt``. If it is damaged, ``best.ckpt``, which is as complete: the epochs after it are repeated,
    which is announced, and the run ends as it would have ended.

    Raises:
        ValueError: all checkpoints are damaged, or ``best.ckpt`` is.
    """
    reasons = {path: damage(path) for path in (folder.last, folder.best) if path.exists()}
    whole = [path for path, reason in reasons.items() if reason is None]
    damaged = [f"{path} is damaged ({reason})" for path, reason in reasons.items() if reason is not None]
    remedy = f"put back a copy of it, or begin anew by removing {folder.checkpoints}"
    if damaged and not whole:
        raise InputError(f"{' and '.join(damaged)}, and there is no other checkpoint to go on from; {remedy}")
    if reasons.get(folder.best) is not None:  # the training would need it at its end
        raise InputError(f"{damaged[0]}, and the weights of the best epoch are in it alone; {remedy}")
    if damaged:
        announce(f"{damaged[0]}; going on from {whole[0]}, what came after it is done again")
    return whole[0] if whole else None


def damage(path: Path) -> str | None:
    """Why a checkpoint file cannot be used, or None; reads all of it and verifies its checksums."""
    try:
        with zipfile.ZipFile(path) as file:
            part = file.testzip()
        if part is not None:
            return f"the checksum of {part} is wrong"
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # damage makes both readers raise errors of many types
        return (str(error).splitlines() or [type(error).__name__])[0]
    missing = [key for key in _KEYS if not isinstance(content, dict) or key not in content]
    return f"it holds no {missing[0]}" if missing else None

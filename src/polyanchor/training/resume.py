"""What has to be the same for a run to go on as if it had not been interrupted."""

from __future__ import annotations

from typing import Any

from polyanchor._errors import InputError
from polyanchor.training.config import Config
from polyanchor.training.run_folder import RunFolder

# These change nothing about what is computed; anything else is in the optimizer's state, the order of the batches
# or the shape of the proxies, and would be taken in part, or not at all.
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


def check_resume(folder: RunFolder, config: Config, split: dict[str, Any], *, trained: bool = True) -> bool:
    """Refuse to resume with another configuration or other data.

    Args:
        folder: of the run.
        config: what it would go on with.
        split: what the data source gives now, in the form of ``split.json``.
        trained: whether there is a checkpoint to go on from; if not, the items may hold what they like.

    Returns:
        Whether items have changed since the run was begun, and ``data.on_changed`` accepts it.

    Raises:
        ValueError: a key that matters was changed, or the items, what they hold or the held-out classes are others.
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
    if not trained or then.get("contents", split["contents"]) == split["contents"]:  # runs of former versions have none
        return bool(then.get("changed", False))
    if config.data.on_changed == "stop":
        raise InputError(
            f"the items of {split['source']} have the names that they had when {folder.path} was begun, and other "
            f"contents (sizes of files, values of vectors); files changed since are listed by: find FOLDER -newer "
            f"{folder.split}. Put the data back as it was, begin a new run, or go on all the same with "
            "--set data.on_changed=accept"
        )
    return True


def _flat(config: Config) -> dict[str, Any]:
    return {
        f"{section}.{name}": value
        for section, part in config.model_dump(mode="json").items()
        for name, value in part.items()
    }

"""Where a run computes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from polyanchor._errors import InputError
from polyanchor.training.config import Config


def device_of(config: Config) -> torch.device:
    """Where this configuration computes.

    Raises:
        ValueError: ``run.accelerator`` names something that this machine does not have, or ``run.devices`` too many.
    """
    asked = config.run.accelerator
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    known = ["auto", "cpu"] + ([] if found is None else ["gpu", found.type])
    if asked not in known:
        raise InputError(f"run.accelerator must be {' or '.join(known)} on this machine, got {asked!r}")
    if asked == "cpu" or found is None:
        return torch.device("cpu")
    if config.run.devices > torch.accelerator.device_count():
        raise InputError(
            f"run.devices must be at most {torch.accelerator.device_count()}, the {found.type} devices here, "
            f"got {config.run.devices}"
        )
    return found


def usable_here(config: Config, settings: Sequence[str] = ()) -> Config:
    """The configuration of a finished run for a machine that is not the one it was trained on.

    One process on one device: the run's own kind of device where there is one, else what there is. An accelerator that
    ``settings`` name stays, and :func:`device_of` refuses it if it is not there.
    """
    change: dict[str, object] = {"devices": 1, "nodes": 1}
    kinds = {"auto", "cpu"}
    if torch.accelerator.is_available():
        found = torch.accelerator.current_accelerator()
        kinds |= {"gpu", found.type if found is not None else "gpu"}
    if config.run.accelerator not in kinds and not any(one.startswith("run.accelerator") for one in settings):
        change["accelerator"] = "auto"
    return config.model_copy(update={"run": config.run.model_copy(update=change)})

"""Where a run computes."""

from __future__ import annotations

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

"""Proxies that are spread over the ranks, beside a checkpoint's file: which folder goes with which file."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from polyanchor.distributed.sharded_loss import ShardedMultiProxyAnchorLoss

KEY = "proxies"  # in a checkpoint: name of the folder, beside the file, that holds its proxies


def folder_name(step: int) -> str:
    """Of the proxies after so many steps.

    Example:
        >>> folder_name(1200)
        'proxies-00001200'
    """
    return f"proxies-{step:08d}"


def save(folder: Path, loss: ShardedMultiProxyAnchorLoss, optimizer: Optimizer) -> None:
    """Write the proxies with what the optimizer keeps for them; every rank its own."""
    from polyanchor.distributed.sharded_checkpoint import save_sharded

    save_sharded(folder, loss, optimizer)


def load(folder: Path, loss: ShardedMultiProxyAnchorLoss, optimizer: Optimizer | None = None) -> None:
    """Read them, on any number of ranks."""
    from polyanchor.distributed.sharded_checkpoint import load_sharded

    load_sharded(folder, loss, optimizer)


def leave_out(checkpoint: dict[str, Any]) -> None:
    """Take what is sharded out of a checkpoint that one rank writes."""
    state = checkpoint["state_dict"]
    for name in [name for name, value in state.items() if isinstance(value, DTensor)]:
        del state[name]
    for saved in checkpoint.get("optimizer_states", []):
        kept = saved["state"].items()
        saved["state"] = {
            number: entry for number, entry in kept if not any(isinstance(value, DTensor) for value in entry.values())
        }


def put_in(checkpoint: dict[str, Any], loss: ShardedMultiProxyAnchorLoss) -> None:
    """The proxies as they are, in the place of those that were left out: they are read from their folder later."""
    checkpoint["state_dict"]["loss.proxies"] = loss.proxies.detach()


def whole(tensor: Tensor) -> Tensor:
    """A tensor as one process has it; where it is spread over the ranks, all call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def tidy(checkpoints: Path, needed: Iterable[str]) -> None:
    """Remove the folders that no checkpoint names."""
    for folder in checkpoints.glob("proxies-*"):
        if folder.name not in set(needed):
            shutil.rmtree(folder, ignore_errors=True)

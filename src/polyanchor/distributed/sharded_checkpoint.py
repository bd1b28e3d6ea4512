"""Proxies and their optimizer state as a folder of safetensors files, one a rank, readable on any number of ranks.

The saving, and the dealing out anew, are those of ``torch.distributed.checkpoint``. Its usual reader unpickles the file
``.metadata``, which would run code from a user's path; its safetensors reader and writer, which are used here, keep
shapes and places as JSON in the heads of the files, and no pickle is read or written.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from polyanchor._errors import InputError
from polyanchor.distributed.sharded_loss import ShardedMultiProxyAnchorLoss
from polyanchor.losses.multi_proxy_anchor import MultiProxyAnchorLoss

try:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
except ImportError as error:
    raise ImportError(
        "checkpoints of class-sharded proxies need torch's own safetensors storage, which this torch "
        f"({torch.__version__}) does not have; they were checked with torch 2.14: pip install -U torch"
    ) from error

_PROXIES, _STATE = "proxies", "optimizer."


def save_sharded(folder: Path, loss: MultiProxyAnchorLoss, optimizer: Optimizer | None = None) -> None:
    """Write the proxies, and what the optimizer keeps for them; every rank writes what it holds. All ranks call it.

    Args:
        folder: replaced once all files are written. Killed at any moment, what it held before, or what it holds
            now, is there for :func:`load_sharded`.
        loss: sharded, or whole in a process without a process group.
        optimizer: whose state of the proxies is written too.
    """
    state = {_PROXIES: loss.proxies.detach()}
    if optimizer is not None:
        kept = optimizer.state[loss.proxies]
        state |= {_STATE + name: value for name, value in kept.items() if isinstance(value, Tensor)}
    unfinished = folder.with_name(folder.name + ".writing")  # one name on all ranks, which fill it together
    group = _group(loss)
    first = group is None or dist.get_rank(group) == 0
    if first:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    _wait(group)
    writer = HuggingFaceStorageWriter(str(unfinished), save_distributed=True)
    with _quiet():
        save(state, storage_writer=writer, process_group=group, no_dist=group is None)
    _wait(group)
    if first:
        before = _before(folder)
        if folder.exists():
            shutil.rmtree(before, ignore_errors=True)
            folder.replace(before)
        unfinished.replace(folder)
        shutil.rmtree(before, ignore_errors=True)
    _wait(group)


def load_sharded(folder: Path, loss: MultiProxyAnchorLoss, optimizer: Optimizer | None = None) -> None:
    """Read what :func:`save_sharded` wrote, on any number of ranks; each reads what it needs. All ranks call it.

    Args:
        folder: as written.
        loss: sharded or whole, of the same shape as then; overwritten.
        optimizer: its state of the proxies is overwritten; None leaves it in the folder.

    Raises:
        FileNotFoundError: no such folder, or a rank's file is missing from it.
        ValueError: the proxies there have another shape.
    """
    if not folder.is_dir() and _before(folder).is_dir():  # killed between two renamings
        folder = _before(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there: expected the folder that the proxies were saved to")
    reader = HuggingFaceStorageReader(str(folder))
    there = {name: _whole(folder, name, entry) for name, entry in reader.read_metadata().state_dict_metadata.items()}
    proxies = loss.proxies.detach()
    if there.get(_PROXIES) != proxies.shape:
        found = tuple(there[_PROXIES]) if _PROXIES in there else "none"
        raise InputError(f"{folder} must hold proxies of shape {tuple(proxies.shape)}, got {found}")
    state = {_PROXIES: proxies}
    if optimizer is not None:
        names = [name for name in there if name.startswith(_STATE)]
        state |= {name: _room(there[name], loss.proxies) for name in names}
        optimizer.state[loss.proxies] = {name.removeprefix(_STATE): state[name] for name in names}
    group = _group(loss)
    with _quiet():
        load(state, storage_reader=reader, process_group=group, no_dist=group is None)


def _before(folder: Path) -> Path:
    return folder.with_name(folder.name + ".before")


def _whole(folder: Path, name: str, entry: object) -> torch.Size:
    """The shape of what the files hold together."""
    assert isinstance(entry, TensorStorageMetadata)  # the format has nothing else
    if sum(chunk.sizes.numel() for chunk in entry.chunks) != entry.size.numel():
        raise FileNotFoundError(f"{folder} holds a part of {name} alone; a file of one of the ranks is missing")
    return entry.size


def _room(shape: torch.Size, proxies: Tensor) -> Tensor:
    """A moment is laid out like the proxies; the count of steps is a number, on the CPU."""
    return torch.zeros_like(proxies.detach()) if shape == proxies.shape else torch.zeros(shape)


def _group(loss: MultiProxyAnchorLoss) -> dist.ProcessGroup | None:
    """Those who hold the proxies together; None if this process holds them all."""
    return loss.mesh.get_group() if isinstance(loss, ShardedMultiProxyAnchorLoss) else None


def _wait(group: dist.ProcessGroup | None) -> None:
    if group is not None:
        dist.barrier(group)


@contextmanager
def _quiet() -> Iterator[None]:
    """One process is meant where there is no group."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is .*single process")
        yield

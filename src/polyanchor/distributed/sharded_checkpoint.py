"""Proxies and their optimizer state as a folder of safetensors files, one per rank, readable on any number of ranks.

``torch.distributed.checkpoint`` saves and reshards. Its usual reader unpickles the file ``.metadata``, which could run
code from a user's path; its safetensors reader and writer, used here, keep shapes and offsets as JSON in the file
headers, so no pickle is read or written.
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
    """Write the proxies and their optimizer state; every rank writes its own. All ranks call this.

    Args:
        folder: replaced once all files are written; after a kill at any moment its old or its new content is there
            for :func:`load_sharded`.
        loss: sharded, or whole in a process without a process group.
        optimizer: whose state of the proxies is written too.
    """
    state = {_PROXIES: loss.proxies.detach()}
    if optimizer is not None:
        entries = optimizer.state[loss.proxies].items()
        state |= {_STATE + name: value for name, value in entries if isinstance(value, Tensor)}
    unfinished = folder.with_name(folder.name + ".writing")  # the same name on all ranks, which fill it together
    group = None if loss.mesh is None else loss.mesh.get_group()
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
        backup = _backup(folder)
        if folder.exists():
            shutil.rmtree(backup, ignore_errors=True)
            folder.replace(backup)
        unfinished.replace(folder)
        shutil.rmtree(backup, ignore_errors=True)
    _wait(group)


def load_sharded(folder: Path, loss: MultiProxyAnchorLoss, optimizer: Optimizer | None = None) -> None:
    """Read what :func:`save_sharded` wrote, on any number of ranks; each reads its own part. All ranks call this.

    Args:
        folder: as written.
        loss: sharded or whole, with proxies of the saved shape; overwritten.
        optimizer: its state of the proxies is overwritten; None reads none.

    Raises:
        FileNotFoundError: no such folder, or a rank's file is missing from it.
        ValueError: the proxies there have another shape.
    """
    if not folder.is_dir() and _backup(folder).is_dir():  # killed between two renamings
        folder = _backup(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there: expected the folder that the proxies were saved to")
    reader = HuggingFaceStorageReader(str(folder))
    shapes = {
        name: _full_shape(folder, name, entry) for name, entry in reader.read_metadata().state_dict_metadata.items()
    }
    proxies = loss.proxies.detach()
    if shapes.get(_PROXIES) != proxies.shape:
        saved = tuple(shapes[_PROXIES]) if _PROXIES in shapes else "none"
        raise InputError(f"{folder} must hold proxies of shape {tuple(proxies.shape)}, got {saved}")
    state = {_PROXIES: proxies}
    if optimizer is not None:
        # a moment is laid out like the proxies; the step count is a scalar on the CPU
        state |= {
            name: torch.zeros_like(proxies) if shape == proxies.shape else torch.zeros(shape)
            for name, shape in shapes.items()
            if name.startswith(_STATE)
        }
        moments = {name.removeprefix(_STATE): value for name, value in state.items() if name.startswith(_STATE)}
        optimizer.state[loss.proxies] = moments
    group = None if loss.mesh is None else loss.mesh.get_group()
    with _quiet():
        load(state, storage_reader=reader, process_group=group, no_dist=group is None)


def _backup(folder: Path) -> Path:
    return folder.with_name(folder.name + ".before")


def _full_shape(folder: Path, name: str, entry: object) -> torch.Size:
    """The shape of a tensor whose parts the files hold; refuses missing parts."""
    assert isinstance(entry, TensorStorageMetadata)  # the format has nothing else
    if sum(chunk.sizes.numel() for chunk in entry.chunks) != entry.size.numel():
        raise FileNotFoundError(f"{folder} holds only a part of {name}; the file of a rank is missing")
    return entry.size


def _wait(group: dist.ProcessGroup | None) -> None:
    if group is not None:
        dist.barrier(group)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warning that it saves for one process, which is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is .*single process")
        yield

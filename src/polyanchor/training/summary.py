"""The lines that a run announces at its start, and the environment that its results record."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import polyanchor
from polyanchor.config.builders import Parts
from polyanchor.config.schema import Config
from polyanchor.datasets.items import Items
from polyanchor.losses.proxies import proxies_of
from polyanchor.training.module import Learner, parameter_groups

_PACKAGES = "torchvision", "timm", "lightning", "numpy", "pytorch-metric-learning"


def describe(config: Config, parts: Parts, learner: Learner, batch: int, cutoff_note: str = "") -> Iterator[str]:
    """Lines about data, network, loss, batches and optimizer; ``batch`` is the number of items of a step."""
    split, optim, held = parts.split, config.optim, parts.validation
    chooses = "held out of the training classes choose the epoch" if split.validation is None else "choose the epoch"
    yield (
        f"data      {split.name}: {_count(parts.train)} train, "
        + (f"{_count(held)} {chooses}, " if held is not None else "")
        + f"{_count(split.test)} test"
        + (f", gallery {_count(split.gallery)}" if split.gallery is not None else "")
    )
    notes = (*split.notes, *learner.model.notes, cutoff_note)
    yield from (f"note      {note}" for note in notes if note)
    parameters = sum(p.numel() for p in learner.model.parameters())
    dim = config.model.embedding_dim
    size = f"{parameters / 1e6:.2f} M parameters, neck {config.model.neck}, head {config.model.head}, {dim} dimensions"
    weights = config.model.weights or "random"
    yield (
        f"model     {config.model.backbone}, "
        + (f"weights {weights}, pooling {config.model.pooling}, " if config.model.backbone != "none" else "")
        + size
    )
    yield f"loss      {learner.loss}"
    yield _batch_line(config, len(parts.train.classes), batch)
    for group in parameter_groups(learner.model, learner.loss, config):
        line = f"optimizer {group['name']}: AdamW, learning rate {group['lr']:.3g}"
        line += f" = {group['lr'] / optim.lr:.3g} x backbone" if group["name"] != "backbone" else ""
        line += f", weight decay {group['weight_decay']:.3g}"
        proxies = proxies_of(learner.loss)
        if group["name"] == "proxies" and proxies is not None:
            line += f"; {turning(proxies, group['lr'], learner.model.train_dim)}"
        yield line
    yield (
        f"schedule  {config.run.epochs} epochs of {learner.steps_per_epoch} batches, {optim.schedule}"
        + (f", backbone frozen in the first {optim.warmup_epochs}" if optim.warmup_epochs else "")
    )


def turning(proxies: torch.Tensor, lr: float, dim: int) -> str:
    """The mean length of the proxies, and the angle by which a first step of Adam turns them.

    Args:
        proxies: ``(C, K, D)``.
        lr: learning rate.
        dim: D.

    Example:
        >>> turning(torch.eye(4)[:, None], 0.01, 4)
        'length 1.00, so a full step turns a proxy by 1.1 degrees'
    """
    length = float(proxies.detach().norm(dim=-1).mean())
    angle = math.degrees(math.atan(lr * math.sqrt(dim) / length))
    return f"length {length:.2f}, so a full step turns a proxy by {angle:.1f} degrees"


def _batch_line(config: Config, classes: int, batch: int) -> str:
    configured = config.batches.classes_per_batch * config.batches.samples_per_class
    micro = config.batches.micro_batch_size
    return (
        f"batch     {batch} items"
        + (f", {micro} at most at once through the network" if 0 < micro < batch else "")
        + (f" (not {configured}, as there are {classes} classes to train)" if batch < configured else "")
    )


def _count(items: Items) -> str:
    return f"{len(items.classes)} classes / {len(items)} items"


def environment() -> dict[str, str]:
    """Versions, processor, threads, accelerator and, in a checkout, the commit (with ``+`` if it was changed)."""
    facts = {"polyanchor": polyanchor.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    facts["torch"] = torch.__version__  # with the build, which the package metadata lack
    facts["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    facts["processor"] = _processor()
    if torch.cuda.is_available():
        facts["accelerator"] = torch.cuda.get_device_name()
    if commit := _commit():
        facts["commit"] = commit
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _commit() -> str:
    home = Path(polyanchor.__file__).parent
    git = ["git", "-C", str(home), "describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"]
    try:
        tracked = subprocess.run(
            ["git", "-C", str(home), "ls-files", "--error-unmatch", "__init__.py"], capture_output=True
        )
        if tracked.returncode != 0:
            return ""  # installed somewhere inside another project's checkout
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""

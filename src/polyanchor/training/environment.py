"""Where a number came from: versions, machine, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import polyanchor

_PACKAGES = "torchvision", "timm", "lightning", "numpy", "pytorch-metric-learning"


def environment() -> dict[str, str]:
    """Versions, processor, threads, accelerator and, in a checkout, the commit (with ``+`` if it was changed)."""
    found = {"polyanchor": polyanchor.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["torch"] = torch.__version__  # with the build, which the package's metadata leave out
    found["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    found["processor"] = _processor()
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name()
    if commit := _commit():
        found["commit"] = commit
    return found


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

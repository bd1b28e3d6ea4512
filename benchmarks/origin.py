"""Where a row came from: command, commit, machine, versions."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parent.parent
PEERS = "pytorch-metric-learning", "open-metric-learning", "torchmetrics", "faiss-cpu", "numpy", "lightning"


def origin() -> dict[str, str]:
    """Command, commit, machine, versions."""
    from polyanchor.training.summary import environment  # torch: not for a script that times its import

    found = environment()
    for package in PEERS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found.pop(package, None)
    found["commit"] = commit()
    found["command"] = f"python -m {_module()} {' '.join(sys.argv[1:])}".strip()
    return found


def commit() -> str:
    """The commit, with ``+`` if code differs from it; results that a run has just written are not code."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
        code = ["--", "src", "benchmarks", "pyproject.toml", ":!benchmarks/results"]
        changed = subprocess.run([*git, "status", "--porcelain", *code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout else "")


def _module() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).stem

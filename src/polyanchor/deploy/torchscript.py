"""TorchScript: one file that ``torch.jit.load`` reads, in Python without polyanchor and in C++."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyanchor.deploy.graph import Graph


def write(graph: Graph, file: Path, about: dict[str, Any]) -> None:
    """Trace and save; ``about`` goes with it as the extra file ``polyanchor.json``.

    A trace takes a number that the network computes from its input's shape as fixed. So it is compared afterwards on
    batches of other sizes.
    """
    with torch.no_grad(), _quiet():
        traced = torch.jit.trace(graph.module, graph.example(2, seed=0)[0], check_trace=False)
        torch.jit.save(traced, str(file), {"polyanchor.json": json.dumps(about)})


def reader(graph: Graph, file: Path) -> tuple[str, Callable[[Tensor], Tensor]]:
    """Name of the runtime, and inputs -> embeddings as it computes them."""
    with _quiet():
        loaded = torch.jit.load(str(file))

    def embeddings(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = loaded(inputs)
        return found

    return f"torch.jit of torch {torch.__version__}", embeddings


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch advises torch.export instead, and its tracer warns of numbers that it takes as fixed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

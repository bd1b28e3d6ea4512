"""ONNX: one file that other runtimes read."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyanchor import _extras
from polyanchor._errors import InputError
from polyanchor.deploy.graph import Graph

_LIMIT = 2**31  # a protocol buffer holds no more
_OPSET = 18


def write(graph: Graph, file: Path, about: dict[str, Any]) -> None:
    """Write one file, weights included, whose first axis is free; ``about`` is its metadata ``polyanchor``.

    Raises:
        ValueError: the weights are too large for one file.
    """
    for package in ("onnx", "onnxscript"):
        _extras.load(package, "export")
    size = sum(tensor.numel() * tensor.element_size() for tensor in graph.module.state_dict().values())
    if size >= _LIMIT:
        raise InputError(f"an ONNX file holds 2 GiB at most, the weights take {size / 2**30:.1f} GiB; use torchscript")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's about itself; what counts is compared afterwards
        program = torch.onnx.export(
            graph.module,
            (graph.example(2, seed=0)[0],),
            input_names=[graph.input_name],
            output_names=["embeddings"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # it is None for the old exporter only
    program.model.metadata_props["polyanchor"] = json.dumps(about)
    program.save(file, external_data=False)


def reader(graph: Graph, file: Path) -> tuple[str, Callable[[Tensor], Tensor]] | None:
    """Name of the runtime, and inputs -> embeddings as it computes them; None where there is no onnxruntime."""
    if find_spec("onnxruntime") is None:
        return None
    runtime = _extras.load("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def embeddings(inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["embeddings"], {graph.input_name: inputs.numpy()})[0])

    return f"onnxruntime {runtime.__version__}", embeddings

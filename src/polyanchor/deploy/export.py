"""Export a model for other programs, and compare the file with the model."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._defaults import own_defaults
from polyanchor._errors import InputError
from polyanchor._io import user_path
from polyanchor._optional import load
from polyanchor.deploy.embedder import Embedder
from polyanchor.deploy.graph import Graph, PixelFormat, graph_of
from polyanchor.runs.folder import write_json

TARGETS = ("onnx", "pt2", "safetensors")
ALLOWED = 1e-4
_LIMIT = 2**31  # bytes of a protocol buffer
_OPSET = 18
_BATCHES = (1, 3, 5)  # none is the size that the file was made with


def write_onnx(graph: Graph, file: Path, about: dict[str, Any]) -> None:
    """Write one file, weights included, with a free batch size; ``about`` is its metadata ``polyanchor``.

    Raises:
        ValueError: the weights are too large for a file.
    """
    for package in ("onnx", "onnxscript"):
        load(package, "export")
    size = sum(tensor.numel() * tensor.element_size() for tensor in graph.module.state_dict().values())
    if size >= _LIMIT:
        raise InputError(f"an ONNX file holds 2 GiB at most, the weights take {size / 2**30:.1f} GiB; use pt2")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's about itself; the result is compared afterwards
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
    assert program is not None  # None for the old exporter only
    program.model.metadata_props["polyanchor"] = json.dumps(about)
    program.save(file, external_data=False)


def onnx_reader(graph: Graph, file: Path) -> tuple[str, Callable[[Tensor], Tensor]] | None:
    """Name of the runtime, and its inputs -> embeddings; None without onnxruntime."""
    if find_spec("onnxruntime") is None:
        return None
    runtime = load("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def embeddings(inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["embeddings"], {graph.input_name: inputs.numpy()})[0])

    return f"onnxruntime {runtime.__version__}", embeddings


def write_program(graph: Graph, file: Path, about: dict[str, Any]) -> None:
    """Write the program of ``torch.export`` with a free batch size; ``about`` is its extra file ``polyanchor.json``."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's about itself; the result is compared afterwards
        program = torch.export.export(
            graph.module, (graph.example(2, seed=0)[0],), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        torch.export.save(program, file, extra_files={"polyanchor.json": json.dumps(about)})


def program_reader(graph: Graph, file: Path) -> tuple[str, Callable[[Tensor], Tensor]]:
    """Name of the runtime, and its inputs -> embeddings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the loader's about itself; the result is compared
        loaded = torch.export.load(file).module()  # unpickles: only ever the file that was written just before

    def embeddings(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            computed: Tensor = loaded(inputs)
        return computed

    return f"torch.export of torch {torch.__version__}", embeddings


_FORMATS = {"onnx": (write_onnx, onnx_reader, ".onnx"), "pt2": (write_program, program_reader, ".pt2")}


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        files: the export itself, then what describes it.
        about: input, output, preprocessing, and the comparison with the model.
    """

    files: tuple[Path, ...]
    about: dict[str, Any]


class ExportDiffersError(RuntimeError):
    """The exported file and the model return different vectors."""


@own_defaults()
def export(
    embedder: Embedder,
    to: Literal["onnx", "pt2", "safetensors"],
    out: Path,
    *,
    pixels: PixelFormat = "uint8",
) -> Exported:
    """Write a model for other programs.

    The batch size is free. Normalisation is in the graph; orientation, resizing and cropping are described in
    ``OUT.json`` beside the file, and in the file's metadata. The file is opened again and compared with the model on
    random inputs in batches of 1, 3 and 5.

    Args:
        embedder: the model.
        to: ``"onnx"`` (one file), ``"pt2"`` (one file of ``torch.export``) or ``"safetensors"``: the folder of
            :meth:`~polyanchor.deploy.embedder.Embedder.save_pretrained`.
        out: ``.onnx`` or ``.pt2`` file, replaced in one step, or a new folder.
        pixels: form of the images, see :class:`~polyanchor.deploy.graph.Normalised`; not used for a folder.

    Raises:
        ExportDiffersError: a value differs from the model's by more than 1e-4; no file is left.
        ValueError: an unknown form, another suffix, or a model too large for the format.
        FileExistsError: the folder is not empty.
        MissingExtraError: ONNX without the extra ``export``.
    """
    _check.one_of("to", to, TARGETS)
    out = user_path(out)
    if to == "safetensors":
        return _folder(embedder, out)
    write, reader, suffix = _FORMATS[to]
    if out.suffix != suffix:
        raise InputError(f"--out must end in {suffix} for {to}, got {out}")
    graph = graph_of(embedder, pixels=pixels)
    about = {"format": to} | graph.describe()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as writing:
        file = Path(writing) / out.name
        beside = file.with_name(f"{out.name}.json")
        write(graph, file, about)
        about |= _compared(graph, reader(graph, file), file)
        write_json(beside, about)
        for written in (beside, file):
            written.replace(out.parent / written.name)
    return Exported((out, out.with_name(beside.name)), about)


def _folder(embedder: Embedder, out: Path) -> Exported:
    embedder.save_pretrained(out)
    graph = graph_of(embedder)
    try:
        again = graph_of(Embedder.from_pretrained(out)).module.requires_grad_(False)
        compared = _compared(graph, ("Embedder.from_pretrained", again), out)
    except BaseException:  # Ctrl-C too: a folder is whole or not there
        shutil.rmtree(out)
        raise
    about = {key: value for key, value in graph.describe().items() if key not in ("input", "before", "inside")}
    return Exported(tuple(sorted(out.iterdir())), {"format": "safetensors", **about, **compared})


def _compared(graph: Graph, read: tuple[str, Callable[[Tensor], Tensor]] | None, file: Path) -> dict[str, Any]:
    """Largest difference from the model over random inputs, None without the runtime."""
    if read is None:
        return {"largest_difference": None, "compared_with": "nothing: onnxruntime is not installed"}
    name, embeddings = read
    differences = []
    for seed, batch in enumerate(_BATCHES, 1):
        inputs, expected = graph.example(batch, seed=seed)
        differences.append((embeddings(inputs) - expected).abs().max())
    largest = float(torch.stack(differences).max())
    if not largest <= ALLOWED:  # also false for NaN
        raise ExportDiffersError(
            f"{name} differs from the model by {largest:.2g}, allowed is {ALLOWED:.0e}; {file.name} was not written"
        )
    inputs_compared = f"{sum(_BATCHES)} random inputs in batches of {', '.join(map(str, _BATCHES))}"
    return {"largest_difference": largest, "compared_with": f"{name}, {inputs_compared}"}

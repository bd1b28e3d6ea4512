"""A trained model as a file for other programs, compared with the model before it is called done."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._defaults import own_defaults
from polyanchor._errors import InputError
from polyanchor._files import user_path
from polyanchor.deploy import onnx_file, torchscript
from polyanchor.deploy.embedder import Embedder
from polyanchor.deploy.graph import Graph, PixelFormat, graph_of
from polyanchor.training.run_folder import write_json

TARGETS = ("onnx", "torchscript", "safetensors")
ALLOWED = 1e-4
_BATCHES = (1, 3, 5)  # none is the size that the file was made with
_FORMATS: dict[str, tuple[Any, str]] = {"onnx": (onnx_file, ".onnx"), "torchscript": (torchscript, ".pt")}


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: the export itself, then what describes it.
        about: what goes in, what comes out, what has to be done before, and how it was compared.
    """

    files: tuple[Path, ...]
    about: dict[str, Any]


class ExportDiffersError(RuntimeError):
    """The exported file does not give the vectors of the model."""


@own_defaults()
def export(
    embedder: Embedder,
    to: Literal["onnx", "torchscript", "safetensors"],
    out: Path,
    *,
    pixels: PixelFormat = "uint8",
) -> Exported:
    """Write a model for other programs.

    The batch size is free. Normalisation is in the graph; turning upright, resizing and cropping are described in
    ``OUT.json`` beside the file, and in the file's own metadata. What was written is opened again and compared with the
    model on random inputs in batches of 1, 3 and 5.

    Args:
        embedder: the model.
        to: ``"onnx"`` (one file), ``"torchscript"`` (one file) or ``"safetensors"``: the folder of
            :meth:`~polyanchor.deploy.embedder.Embedder.save_pretrained`.
        out: ``.onnx`` or ``.pt`` file, replaced in one step, or a new folder.
        pixels: form of the images, see :class:`~polyanchor.deploy.graph.Normalised`; not for a folder.

    Raises:
        ExportDiffersError: a value differs from the model's by more than 1e-4; nothing is left of the file.
        ValueError: an unknown form, another suffix, or a model too large for the format.
        FileExistsError: the folder holds something.
        MissingExtraError: ONNX without the extra ``export``.
    """
    _check.one_of("to", to, TARGETS)
    out = user_path(out)
    if to == "safetensors":
        return _folder(embedder, out)
    writer, suffix = _FORMATS[to]
    if out.suffix != suffix:
        raise InputError(f"--out must end in {suffix} for {to}, got {out}")
    graph = graph_of(embedder, pixels=pixels)
    about = {"format": to} | graph.describe()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as writing:
        file = Path(writing) / out.name
        beside = file.with_name(f"{out.name}.json")
        writer.write(graph, file, about)
        about |= _compared(graph, writer.reader(graph, file), file)
        write_json(beside, about)
        for done in (beside, file):
            done.replace(out.parent / done.name)
    return Exported((out, out.with_name(beside.name)), about)


def _folder(embedder: Embedder, out: Path) -> Exported:
    embedder.save_pretrained(out)
    graph = graph_of(embedder)
    try:
        again = graph_of(Embedder.from_pretrained(out)).module.requires_grad_(False)
        compared = _compared(graph, ("Embedder.from_pretrained", again), out)
    except BaseException:
        shutil.rmtree(out)
        raise
    of_a_file = "input", "before", "inside"
    told = {key: value for key, value in graph.describe().items() if key not in of_a_file}
    return Exported(tuple(sorted(out.iterdir())), {"format": "safetensors", **told, **compared})


def _compared(graph: Graph, read: tuple[str, Callable[[Tensor], Tensor]] | None, file: Path) -> dict[str, Any]:
    """Largest difference to the model over random inputs, or None where the runtime is not installed."""
    if read is None:
        return {"largest_difference": None, "compared_with": "nothing: onnxruntime is not installed"}
    name, embeddings = read
    differences = []
    for seed, batch in enumerate(_BATCHES, 1):
        inputs, expected = graph.example(batch, seed=seed)
        differences.append((embeddings(inputs) - expected).abs().max())
    largest = float(torch.stack(differences).max())
    if not largest <= ALLOWED:  # NaN is no agreement either
        raise ExportDiffersError(
            f"{name} differs from the model by {largest:.2g}, allowed is {ALLOWED:.0e}; {file.name} was not written"
        )
    inputs_compared = f"{sum(_BATCHES)} random inputs in batches of {', '.join(map(str, _BATCHES))}"
    return {"largest_difference": largest, "compared_with": f"{name}, {inputs_compared}"}

"""Precomputed vectors of any modality: safetensors, npz, npy, or tensors saved by torch. Reading runs no code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._io import read_tensors, reading, what_was_refused
from polyanchor._optional import load
from polyanchor.datasets.formats._tables import encode_labels, part_numbers
from polyanchor.datasets.items import Items
from polyanchor.datasets.spec import VECTOR_SUFFIXES as SUFFIXES
from polyanchor.datasets.splits import SourceItems

# Role of an array -> the names it may have, in any case; the first is the documented one.
_KEYS: Mapping[str, tuple[str, ...]] = {
    "vectors": ("vectors", "embeddings", "embedding", "features", "feats", "emb", "x"),
    "labels": ("labels", "label", "targets", "target", "y", "class_ids", "class_labels"),
    "split": ("split",),
    "sublabels": ("sublabels",),
    "names": ("names", "paths", "filenames"),
}
# The labels of an .npy file lie beside it: `train_labels.npy` for `train.npy` and for `train_embeddings.npy`.
_BESIDE = ("labels", "targets")
_SUFFIX = re.compile(rf"_({'|'.join(_KEYS['vectors'])})$", re.IGNORECASE)
_LAYOUT = (
    "vectors (N, D) floating or of 8-bit integers, labels (N,) integers or texts, and perhaps split (N,), 0 train, "
    "1 test, 2 gallery, 3 validation, or these words, and sublabels (N,) integer"
)


def read(file: Path) -> SourceItems:
    """List the vectors of a file.

    It holds ``vectors (N, D)``, floating or 8-bit integers, ``labels (N,)`` and optionally ``split (N,)``: 0 train,
    1 test, 2 gallery, 3 validation, or these words, and ``sublabels (N,)``, see
    :class:`~polyanchor.datasets.items.Items`. Vectors may also be called ``embeddings`` or ``features``, and labels
    ``targets``. A ``.safetensors`` file may carry, under the metadata key ``polyanchor``, the JSON text
    ``{"names": [...], "class_names": {"0": "..."}}``; a ``.npz`` file may hold an array ``names``, and its
    labels may be texts. The labels of ``X.npy`` are in ``X_labels.npy`` or ``labels.npy`` beside it, those of
    ``X_embeddings.npy`` in ``X_labels.npy``; ``targets`` may replace ``labels`` there too. Of ``.pt`` and ``.pth``
    files only tensors and plain lists are read.

    Args:
        file: ends in one of :data:`SUFFIXES`, in any case of letters.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another suffix, an array that is missing, has another shape or dtype, NaN or a value beyond
            float32, names that are not texts, pickled objects, or a damaged file.
    """
    name = f"features:{file}"
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"{name}: expected a file that ends in {', '.join(SUFFIXES)}, got {file.suffix or 'no suffix'!r}"
        )
    if not file.is_file():
        raise FileNotFoundError(f"{name}: no such file")
    # RuntimeError: a zip archive that seems to be encrypted, or uses an unknown compression
    with reading(name, RuntimeError):
        arrays, metadata = _READERS[suffix](file)
        return _listing(name, arrays, metadata)


def _listing(name: str, stored: Mapping[str, Any], metadata: Mapping[str, Any]) -> SourceItems:
    arrays = _by_role(stored)
    absent = [role for role in ("vectors", "labels") if role not in arrays]
    if absent:
        raise InputError(
            f"{' and '.join(absent)} missing; expected {_LAYOUT}; it holds {', '.join(stored) or 'nothing'}"
        )
    vectors = _floats(_tensor("vectors", arrays["vectors"]))
    labels, class_names = _labels(arrays["labels"])
    parts, notes = _parts(arrays["split"], len(vectors)) if "split" in arrays else (None, ())
    sublabels = _labels(arrays["sublabels"], "sublabels")[0] if "sublabels" in arrays else None
    names = _names(metadata) or tuple(_texts("names", arrays["names"]) if "names" in arrays else ())
    return SourceItems(
        name, Items(vectors, labels, class_names or _class_names(metadata), names, sublabels), parts, notes
    )


def _parts(array: Any, rows: int) -> tuple[Tensor, tuple[str, ...]]:
    """Part number of each row, and notes."""
    numbers, notes = part_numbers(_texts("split", array), what="split") if _is_text(array) else ((), ())
    parts = torch.tensor(numbers) if numbers else _tensor("split", array)
    parts = _check.integer_labels("split", parts, rows)
    if not bool(torch.isin(parts, torch.arange(4)).all()):
        raise InputError(f"split may hold 0 train, 1 test, 2 gallery, 3 validation; got {parts.unique()[:5].tolist()}")
    return parts, notes


def _by_role(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Role -> array, by the documented name, or else by the only other name that occurs."""
    arrays: dict[str, Any] = {}
    for role, names in _KEYS.items():
        keys = [key for key in stored if key == names[0]] or [key for key in stored if key.lower() in names]
        if len(keys) > 1:
            raise InputError(f"the {role} may be any of {', '.join(keys)}; call one of them {names[0]}")
        if keys:
            arrays[role] = stored[keys[0]]
    return arrays


def _tensor(role: str, array: Any) -> Tensor:
    """An array of numbers as a tensor, sharing memory unless the byte order differs."""
    if isinstance(array, Tensor):
        if array.layout != torch.strided or array.is_quantized:
            raise InputError(f"{role} must be a dense tensor, got {array.dtype} {array.layout}; call .to_dense() on it")
        return array
    numpy = load("numpy", "train")
    if not isinstance(array, numpy.ndarray):
        array = numpy.asarray(array)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise InputError(f"{role} must be real numbers of 64 bits or less, got {array.dtype}; save float32 or int64")
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _floats(vectors: Tensor) -> Tensor:
    """As float32; quantised values are not rescaled, as cosines ignore a common scale."""
    if vectors.dtype in (torch.int8, torch.uint8):
        vectors = vectors.float()
    _check.vectors("vectors", vectors, rows="N")
    vectors = vectors.detach().float()
    _check.finite("vectors in float32", vectors)  # after the conversion, which makes 1e300 infinite
    return vectors


def _labels(array: Any, role: str = "labels") -> tuple[Tensor, Mapping[int, str]]:
    """Class ids, and class names where labels are texts, booleans or numbers beyond 64 bits."""
    if _is_text(array):
        return _numbered(_texts(role, array))
    labels = _tensor(role, array)
    if labels.dtype == torch.bool or (labels.dtype == torch.uint64 and bool((labels.long() < 0).any())):
        return _numbered([str(label) for label in labels.tolist()])
    return labels, {}


def _is_text(array: Any) -> bool:
    if isinstance(array, (list, tuple)):
        return any(isinstance(value, str) for value in array)
    return not isinstance(array, Tensor) and array.dtype.kind in "SU"


def _texts(role: str, array: Any) -> list[str]:
    values = array if isinstance(array, (list, tuple)) else array.tolist()
    texts = [value.decode() if isinstance(value, bytes) else value for value in values]
    if not all(isinstance(text, (str, int)) for text in texts):
        raise InputError(f"{role} must be texts, one per row, got {str(values)[:40]}")
    return [str(text) for text in texts]


def _numbered(labels: Sequence[str]) -> tuple[Tensor, Mapping[int, str]]:
    ids, names = encode_labels(labels)
    return torch.tensor(ids, dtype=torch.int64), names


def _names(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    names = metadata.get("names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"names must be a list of texts, one per row, got {str(names)[:40]!r}")
    return tuple(names)


def _class_names(metadata: Mapping[str, Any]) -> dict[int, str]:
    names = metadata.get("class_names", {})
    if not isinstance(names, dict) or not all(
        str(number).isdecimal() and isinstance(name, str) for number, name in names.items()
    ):
        raise InputError(f'class_names must be an object such as {{"0": "cat"}}, got {str(names)[:40]!r}')
    return {int(number): name for number, name in names.items()}


def _safetensors(file: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    arrays, texts = read_tensors(file)
    text = texts.get("polyanchor", "{}")
    try:
        metadata = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"features:{file}: the metadata under 'polyanchor' is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise InputError(f"features:{file}: the metadata under 'polyanchor' must be a JSON object, got {text[:40]}")
    return arrays, metadata


def _npz(file: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    if not is_zipfile(file):  # numpy would take it for a pickle, and advise to load that
        raise InputError(f"features:{file}: damaged or not a .npz file; write one with numpy.savez")
    arrays: dict[str, Any] = {}
    with load("numpy", "train").load(file, allow_pickle=False) as stored:
        for key in stored.files:
            array = _no_objects(key, partial(stored.__getitem__, key))
            if not isinstance(array, bytes):  # else a file in the archive that is no array
                arrays[key] = array
    return arrays, {}


def _npy(file: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """An array of vectors, with the labels in a file beside it."""
    stems = dict.fromkeys((file.stem, _SUFFIX.sub("", file.stem)))
    beside = [file.with_name(f"{stem}_{word}.npy") for stem in stems if stem for word in _BESIDE]
    beside += [file.with_name(f"{word}.npy") for word in _BESIDE]
    labels = next((path for path in beside if path.is_file() and path != file), None)
    if labels is None:
        raise InputError(f"labels missing; put them beside it, in {beside[0].name} or labels.npy")
    numpy = load("numpy", "train")
    arrays = {}
    for role, path in (("vectors", file), ("labels", labels)):
        with reading(f"features:{path}"):
            arrays[role] = _no_objects(role, partial(numpy.load, path, allow_pickle=False))
    return arrays, {}


def _no_objects(key: str, read_array: Callable[[], Any]) -> Any:
    try:
        return read_array()
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise InputError(
            f"{key} holds Python objects, or is no array; objects are not loaded as a file can run code with them: "
            "save numbers, or fixed-width texts"
        ) from error


def _torch(file: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Tensors and plain lists, by torch's restricted reader."""
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damage makes the unpickler fail in any way
        raise InputError(
            "it must hold tensors in a dictionary; it is damaged or holds other objects, which are not loaded as a "
            f"file can run code with them{what_was_refused(error)}"
        ) from error
    if not isinstance(stored, dict):
        raise InputError(
            f'it must hold a dictionary such as {{"vectors": ..., "labels": ...}}, got {type(stored).__name__}'
        )
    return {str(key): value for key, value in stored.items() if isinstance(value, (Tensor, list, tuple))}, {}


_READERS: Mapping[str, Callable[[Path], tuple[dict[str, Any], Mapping[str, Any]]]] = {
    ".safetensors": _safetensors,
    ".npz": _npz,
    ".npy": _npy,
    ".pt": _torch,
    ".pth": _torch,
}

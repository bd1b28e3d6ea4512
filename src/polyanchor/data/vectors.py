"""Vectors computed beforehand, of any modality: a safetensors or an npz file. Nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._extras import load
from polyanchor.data.columns import numbered
from polyanchor.data.items import Items
from polyanchor.data.listing import Listing
from polyanchor.data.reading import reading

_LAYOUT = (
    "vectors (N, D) floating, labels (N,) integer and perhaps split (N,), 0 train and 1 test, "
    "and sublabels (N,) integer"
)


def read(file: Path) -> Listing:
    """List the vectors of a file.

    It holds ``vectors (N, D)``, ``labels (N,)`` and perhaps ``split (N,)``: 0 train, 1 test, 2 gallery, and
    ``sublabels (N,)``: known finer classes, see :class:`~polyanchor.data.items.Items`. A
    ``.safetensors`` file may carry, under the metadata key ``polyanchor``, the JSON text
    ``{"names": [...], "class_names": {"0": "..."}}``; a ``.npz`` file may hold an array ``names``, and its
    labels may be texts.

    Args:
        file: a ``.safetensors`` or ``.npz`` file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another suffix, an array missing, of another shape or dtype, with NaN or a value beyond
            float32, names that are no texts, pickled objects, or a damaged file.
    """
    name = f"features:{file}"
    if file.suffix not in (".safetensors", ".npz"):
        raise InputError(f"{name}: expected a .safetensors or .npz file, got {file.suffix or 'no suffix'!r}")
    if not file.is_file():
        raise FileNotFoundError(f"{name}: no such file")
    # RuntimeError: what a zip archive says that seems to be encrypted, or packed in a way that is not known
    with reading(name, load("safetensors", "train").SafetensorError, RuntimeError):
        arrays, said = _safetensors(file) if file.suffix == ".safetensors" else _npz(file)
        return _listing(name, arrays, said)


def _listing(name: str, arrays: Mapping[str, Tensor], said: Mapping[str, Any]) -> Listing:
    absent = [key for key in ("vectors", "labels") if key not in arrays]
    if absent:
        raise InputError(f"{name}: {' and '.join(absent)} missing; expected {_LAYOUT}; it holds {', '.join(arrays)}")
    _check.vectors("vectors", arrays["vectors"], rows="N")
    vectors = arrays["vectors"].float()
    _check.finite("vectors in float32", vectors)  # after the conversion, which makes 1e300 infinite
    parts = arrays.get("split")
    if parts is not None:
        parts = _check.integer_labels("split", parts, len(vectors))
        if not bool(torch.isin(parts, torch.arange(3)).all()):
            raise InputError(f"{name}: split may hold 0 train, 1 test, 2 gallery; got {parts.unique()[:5].tolist()}")
    items = Items(vectors, arrays["labels"], _class_names(said), _names(said), arrays.get("sublabels"))
    return Listing(name, items, parts)


def _names(said: Mapping[str, Any]) -> tuple[str, ...]:
    names = said.get("names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"names must be a list of texts, one per row, got {str(names)[:40]!r}")
    return tuple(names)


def _class_names(said: Mapping[str, Any]) -> dict[int, str]:
    names = said.get("class_names", {})
    if not isinstance(names, dict) or not all(
        str(number).isdecimal() and isinstance(name, str) for number, name in names.items()
    ):
        raise InputError(f'class_names must be an object such as {{"0": "cat"}}, got {str(names)[:40]!r}')
    return {int(number): name for number, name in names.items()}


def _safetensors(file: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    with load("safetensors", "train").safe_open(str(file), framework="pt") as stored:
        arrays = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 (not a mapping)
        text = (stored.metadata() or {}).get("polyanchor", "{}")
    try:
        said = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"features:{file}: the metadata under 'polyanchor' is not JSON: {error}") from error
    if not isinstance(said, dict):
        raise InputError(f"features:{file}: the metadata under 'polyanchor' must be a JSON object, got {text[:40]}")
    return arrays, said


def _npz(file: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    if not is_zipfile(file):  # numpy would take it for a pickle, and advise to load that
        raise InputError(f"features:{file}: damaged or not a .npz file; write one with numpy.savez")
    arrays: dict[str, Tensor] = {}
    said: dict[str, Any] = {}
    with load("numpy", "train").load(file, allow_pickle=False) as stored:
        for key in stored.files:
            try:
                array = stored[key]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                raise InputError(
                    f"features:{file}: {key} holds Python objects, which are not loaded as a file can run code "
                    "with them; save numbers, or fixed-width texts"
                ) from error
            if isinstance(array, bytes):  # a file in the archive that is no array
                continue
            if key == "names":
                said["names"] = array.astype(str).tolist()
            elif key == "labels" and array.dtype.kind == "U":
                arrays[key], said["class_names"] = _texts(array.tolist())
            elif array.dtype.kind in "fiu":
                arrays[key] = torch.from_numpy(array)
    return arrays, said


def _texts(labels: Sequence[str]) -> tuple[Tensor, Mapping[int, str]]:
    ids, names = numbered(labels)
    return torch.tensor(ids, dtype=torch.int64), names

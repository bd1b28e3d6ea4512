"""Files of named tensors, with a checksum in the file itself: what a disk or a copy damaged is no number."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from polyanchor import _extras
from polyanchor._errors import InputError
from polyanchor._files import replacing

_CHECKSUM = "crc32"  # three times as fast as a cryptographic one, and this is about damage, not about deceit


def save_tensors(tensors: Mapping[str, Tensor], path: Path, said: Mapping[str, str] | None = None) -> None:
    """A ``.safetensors`` file, replaced in one step; the checksum is in its header, so it is never that of another.

    Args:
        tensors: name -> any.
        path: the file.
        said: texts to put beside them.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    said = dict(said or {})
    said[_CHECKSUM] = checksum(whole, said)
    with replacing(path) as unfinished:
        _extras.load("safetensors.torch", "train").save_file(whole, unfinished, said)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a ``.safetensors`` file, and the texts beside them.

    Files without a checksum, of other programs and of former versions, are read as they are.

    Raises:
        InputError: no such file, or its content is not what was written.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.safetensors"
        >>> save_tensors({"a": torch.ones(2)}, file, {"unit": "m"})
        >>> read_tensors(file)
        ({'a': tensor([1., 1.])}, {'unit': 'm'})
    """
    try:
        with _extras.load("safetensors", "train").safe_open(path, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
            said = dict(stored.metadata() or {})
    except Exception as error:  # the reader's own error type is private to its Rust half
        raise InputError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    expected = said.pop(_CHECKSUM, None)
    if expected is not None and checksum(tensors, said) != expected:
        raise InputError(
            f"{path} is damaged: its checksum is another than when it was written; put it back from a copy, or write "
            "it again"
        )
    return tensors, said


def checksum(tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> str:
    """CRC-32 over names, dtypes, shapes and bytes of tensors on the CPU, and over the texts, in the order of the names.

    Example:
        >>> checksum({"a": torch.zeros(2)}, {}) == checksum({"a": torch.zeros(2, 1)}, {})
        False
    """
    found = 0
    for name, tensor in sorted(tensors.items()):
        found = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), found)
        found = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, found)
    for name, text in sorted(said.items()):
        found = zlib.crc32(f"{name} {text}".encode("utf-8", "surrogatepass"), found)
    return f"{found:08x}"

"""Tensors in files, and what becomes of damage."""

import json
import struct
import zlib

import pytest
import torch
from safetensors.torch import load_file, save_file

from polyanchor._errors import InputError
from polyanchor._io import read_tensors, save_tensors
from polyanchor.datasets.formats import vectors
from polyanchor.models.weights import read_state

TENSORS = {
    "weight": torch.arange(4096.0).reshape(64, 64),
    "half": torch.ones(5, dtype=torch.bfloat16),
    "flags": torch.tensor([True, False]),
    "count": torch.tensor(7),
    "none": torch.empty(0, 3),
}


def header_of(path):
    """The header as the format's description has it: its length in 8 bytes, then JSON."""
    whole = path.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    return json.loads(whole[8 : 8 + size]), 8 + size


def test_what_was_written_is_read(tmp_path):
    save_tensors(TENSORS, tmp_path / "a.safetensors", {"unit": "m"})
    found, said = read_tensors(tmp_path / "a.safetensors")
    assert said == {"unit": "m"}
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)
    other = load_file(tmp_path / "a.safetensors")  # any other reader reads it too
    assert all(torch.equal(other[name], TENSORS[name]) for name in TENSORS)


def test_the_checksum_is_the_one_of_the_bytes(tmp_path):
    save_tensors({"a": torch.arange(5.0)}, tmp_path / "a.safetensors")
    header, begin = header_of(tmp_path / "a.safetensors")
    expected = zlib.crc32(b"a torch.float32 (5,)" + (tmp_path / "a.safetensors").read_bytes()[begin:])
    assert header["__metadata__"] == {"crc32": f"{expected:08x}"}


@pytest.mark.parametrize("length", [1, 512])
def test_zeroed_bytes_anywhere_are_found(tmp_path, length):
    path = tmp_path / "a.safetensors"
    save_tensors({"weight": TENSORS["weight"] + 1}, path, {"unit": "m"})
    whole = path.read_bytes()
    for place in [*range(0, len(whole) - length, 509), len(whole) - length]:
        damaged = whole[:place] + bytes(length) + whole[place + length :]
        if damaged == whole:
            continue
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.safetensors is (damaged|not a safetensors file)") as raised:
            read_state(path)
        assert str(raised.value).startswith(str(path))


def test_a_changed_text_is_found(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors(TENSORS, path, {"unit": "metre"})
    path.write_bytes(path.read_bytes().replace(b"metre", b"meter"))
    with pytest.raises(InputError, match="checksum"):
        read_tensors(path)


def test_a_file_without_a_checksum_is_read_as_it_is(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    assert read_state(tmp_path / "a.safetensors").keys() == TENSORS.keys()


def test_a_damaged_file_of_vectors_is_no_data(tmp_path):
    path = tmp_path / "v.safetensors"
    save_tensors({"vectors": torch.rand(64, 8) + 1, "labels": torch.arange(64) // 2}, path)
    assert len(vectors.read(path).items) == 64
    whole = path.read_bytes()
    path.write_bytes(whole[:-300] + bytes(200) + whole[-100:])
    with pytest.raises(InputError, match="^features:.*checksum"):
        vectors.read(path)

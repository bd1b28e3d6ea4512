import csv
import errno
import io
import json
import zlib
from random import Random
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from safetensors.torch import save_file

from polyanchor._errors import InputError
from polyanchor._io import reading, text_lines
from polyanchor.datasets.sources import open_source


def raised(error, *more):
    with pytest.raises(ValueError) as caught, reading("a file", *more):
        raise error
    assert caught.value is error or caught.value.__cause__ is error
    return str(caught.value)


@pytest.mark.parametrize("kind", [csv.Error, zlib.error, BadZipFile, EOFError, OSError])
def test_damage_is_bad_input(kind):
    assert raised(kind("so it is")) == "a file: damaged or of another format: so it is"
    assert raised(kind()).endswith(kind.__name__)
    assert "damaged" in raised(OSError(errno.EINVAL, "Invalid argument"))


def test_a_value_gets_the_name_once():
    assert raised(ValueError("too long")) == "a file: too long"
    assert raised(TypeError("no integers")) == "a file: no integers"
    assert raised(ValueError("a file: too long")) == "a file: too long"


def test_errors_of_the_package_at_work_are_given():
    assert raised(NotImplementedError("v8"), NotImplementedError).endswith("v8")
    with pytest.raises(NotImplementedError), reading("a file"):
        raise NotImplementedError


def test_the_systems_own_errors_pass():
    with pytest.raises(PermissionError), reading("a file"):
        raise PermissionError(errno.EACCES, "no", "x")


def test_lines_of_a_text(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"a\r\nb")
    assert text_lines(tmp_path / "x.txt") == ["a", "b"]
    (tmp_path / "x.txt").write_bytes(b"a\xff")
    with pytest.raises(ValueError, match=r"x\.txt: expected UTF-8 text, got the byte 0xff at 1"):
        text_lines(tmp_path / "x.txt")


def written(place):
    """A good file of each kind that is read, with the source that reads it."""
    vectors, labels = torch.rand(24, 5), torch.arange(24) // 4
    names = [f"n{row}" for row in range(24)]
    said = {"polyanchor": json.dumps({"names": names})}
    save_file({"vectors": vectors, "labels": labels}, place / "a.safetensors", said)
    np.savez_compressed(place / "b.npz", vectors=vectors.numpy(), labels=labels.numpy(), names=np.array(names))
    np.save(place / "c.npy", vectors.numpy())
    np.save(place / "c_labels.npy", labels.numpy())
    torch.save({"vectors": vectors, "labels": labels}, place / "d.pt")
    picture = io.BytesIO()
    Image.new("RGB", (9, 9)).save(picture, "png")
    parquet.write_table(pa.table({"image": [picture.getvalue()] * 24, "label": labels.tolist()}), place / "e.parquet")
    (place / "i.png").write_bytes(picture.getvalue())
    (place / "f.csv").write_text("path,label\n" + "".join(f'i.png,"c{row // 4}"\n' for row in range(24)))
    kinds = {".parquet": "parquet", ".csv": "csv"}
    files = [file for file in sorted(place.iterdir()) if file.suffix != ".png" and file.name != "c_labels.npy"]
    return {file: f"{kinds.get(file.suffix, 'features')}:{file}" for file in files}


def mutated(content, random):
    """Cut, zeroed, overwritten or doubled in part, often near an end, where headings and directories are."""
    size = len(content)
    place = min(max(random.choice([random.randrange(size), random.randrange(80), size - 80]), 0), size - 1)
    put = random.choice([b"", bytes(20), random.randbytes(1), random.randbytes(3), content[place : place + 50], None])
    return content[:place] if put is None else content[:place] + put + content[place + random.choice([0, len(put)]) :]


WORST = [
    b"",
    bytes(500),
    b"[" * 200_000,
    b"\xff\xfea\0b\0",
    b"PK\x03\x04" + bytes(100),
    b"PAR1" + bytes(50) + b"PAR1",
    b"\x93NUMPY\x01\x00v\x00" + b"{" * 200,
    b"\x80\x02\x85.",  # a pickle that takes from an empty stack
]


@pytest.mark.filterwarnings("ignore")  # the libraries' own, of files damaged on purpose
def test_whatever_damage_an_input_has_is_said_as_bad_input(tmp_path):
    """Seeded, so that it is the same each time; a file that still reads is fine."""
    for file, source in written(tmp_path).items():
        good, random, said = file.read_bytes(), Random(0), []
        assert open_source(source).name == source
        for content in WORST + [mutated(good, random) for _ in range(60)]:
            file.write_bytes(content)
            try:
                open_source(source)
            except InputError as error:
                said.append(str(error))
        assert len(said) >= len(WORST)
        assert [text for text in said if not text.startswith((source, str(file)))] == []
        file.write_bytes(good)

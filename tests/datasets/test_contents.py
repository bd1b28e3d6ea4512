"""A changed item changes the digest; another place, time or order of opening does not."""

import os

import numpy as np
import pyarrow
import pytest
import torch

from polyanchor.datasets.images import ImageArrays, ImageBytes, ImageFiles
from polyanchor.datasets.items import Items, content_digest

LABELS = torch.tensor([0, 0, 1])


def files(folder, held):
    folder.mkdir()
    for name, content in zip("abc", held, strict=True):
        (folder / name).write_bytes(content)
    return ImageFiles(folder, ["a", "b", "c"])


MAKE = {
    "files": files,
    "bytes": lambda folder, held: ImageBytes(held, ["a", "b", "c"]),
    "arrow": lambda folder, held: ImageBytes(pyarrow.array(held, pyarrow.binary()), ["a", "b", "c"]),
    "arrays": lambda folder, held: ImageArrays(
        np.stack([np.frombuffer(content[:4], np.uint8).reshape(2, 2) for content in held]), ["a", "b", "c"]
    ),
}
BEFORE = [b"12345", b"6789", b"abcdef"]
AFTER = {"files": b"1234", "bytes": b"1234", "arrow": b"1234", "arrays": b"1239"}


@pytest.mark.parametrize("kind", MAKE)
def test_images(tmp_path, kind):
    def digest(name, held, rows=(0, 1, 2)):
        return content_digest(Items(MAKE[kind](tmp_path / name, held), LABELS).subset(torch.tensor(rows)))

    whole = digest("one", BEFORE)
    assert digest("copy", BEFORE) == whole
    assert digest("changed", [AFTER[kind], *BEFORE[1:]]) != whole
    assert digest("turned", BEFORE, (2, 1, 0)) != whole
    assert digest("part", BEFORE, (0, 1)) != whole


def test_times_do_not_count_and_missing_files_do(tmp_path):
    items = Items(files(tmp_path / "x", BEFORE), LABELS)
    whole = content_digest(items)
    os.utime(tmp_path / "x" / "a", (0, 0))
    assert content_digest(items) == whole
    (tmp_path / "x" / "a").unlink()
    assert content_digest(items) != whole


def test_every_value_of_a_vector_counts():
    vectors = torch.randn(3, 5)
    whole = content_digest(Items(vectors, LABELS))
    assert content_digest(Items(vectors.clone().T.contiguous().T, LABELS)) == whole
    assert content_digest(Items(vectors.half(), LABELS)) != whole
    vectors[2, 4] += 1e-6
    assert content_digest(Items(vectors, LABELS)) != whole


def test_an_empty_cell_of_a_table():
    cells = pyarrow.array([b"1", None, b"3"], pyarrow.binary())
    assert len(content_digest(Items(ImageBytes(cells, ["a", "b", "c"]), LABELS))) == 32

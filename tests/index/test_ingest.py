"""From data to an index: what is refused before anything is written, and how much memory it takes."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from polyanchor._errors import InputError
from polyanchor.deploy.description import Description
from polyanchor.deploy.embedder import Embedder
from polyanchor.index.index import Index
from polyanchor.index.ingest import add, build
from polyanchor.models.embedding import EmbeddingModel


def vectors(file, columns, rows=6):
    if file.suffix == ".npz":
        np.savez(file, vectors=np.ones((rows, columns), "f"), labels=np.arange(rows))
    else:
        save_file({"vectors": torch.randn(rows, columns), "labels": torch.arange(rows)}, file)
    return str(file)


def test_vectors_of_two_widths_are_refused_before_anything_is_written(tmp_path):
    first, other = vectors(tmp_path / "v8.safetensors", 8), vectors(tmp_path / "v96.npz", 96)
    place = tmp_path / "index"
    with pytest.raises(
        InputError, match=r"^\S*v96\.npz has vectors of 96 columns, \S*v8\.safetensors has vectors of 8;"
    ):
        build(tmp_path / "v8.safetensors", str(place), data=[other])
    assert not place.exists()
    index, _ = build(tmp_path / "v8.safetensors", str(place), data=[f"features:{first}"])
    assert len(index) == 6  # the same names, so the same items
    held = sorted(file.name for file in place.iterdir())
    with pytest.raises(InputError, match=r"^\S*v96\.npz has vectors of 96 columns, \S*index holds vectors of 8;"):
        add(index, [first, other])
    assert sorted(file.name for file in place.iterdir()) == held


def test_vectors_that_the_model_does_not_take(tmp_path):
    embedder = Embedder(
        EmbeddingModel(None, features=6, embedding_dim=2), Description(backbone="none", embedding_dim=2)
    )
    embedder.save_pretrained(tmp_path / "model")
    right, wrong = vectors(tmp_path / "right.npz", 6), vectors(tmp_path / "wrong.npz", 5)
    with pytest.raises(
        InputError, match=r"wrong\.npz has vectors of 5 columns, the model of \S*model takes vectors of 6"
    ):
        build(tmp_path / "model", str(tmp_path / "index"), data=[right, wrong])
    assert not (tmp_path / "index").exists()
    index, _ = build(tmp_path / "model", str(tmp_path / "index"), data=[right])
    with pytest.raises(InputError, match=r"wrong\.npz has vectors of 5 columns, the index's model takes vectors of 6"):
        add(index, [wrong])
    assert len(Index.open(tmp_path / "index")) == 6


PEAK = """
import re, sys, tempfile
from pathlib import Path
import numpy, torch
from polyanchor.datasets.formats.vectors import read
from polyanchor.index.ingest import build

def status(key):
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

small = Path(tempfile.mkdtemp())
numpy.savez(small / "s.npz", vectors=numpy.ones((9, 256), "f"), labels=numpy.arange(9))
build(small / "s.npz", str(small / "index"))  # what is imported and set up once
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
what, file = sys.argv[1], Path(sys.argv[2])
kept = read(file) if what == "read" else build(file, str(file.parent / "index"))
print(status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(("what", "times"), [("read", 1.5), ("build", 3.0)])
def test_the_memory_it_takes(what, times, suffix, tmp_path):
    file = tmp_path / f"x{suffix}"
    vectors(file, 256, rows=65_536)  # 64 MiB
    done = subprocess.run([sys.executable, "-c", PEAK, what, str(file)], check=True, capture_output=True, text=True)
    assert float(re.findall(r"[\d.]+", done.stdout)[-1]) < times * file.stat().st_size / 2**20

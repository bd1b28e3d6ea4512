"""What the items of each source are called in an index, and the way back to their images."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from polyanchor.datasets.images import BadImageError, ImageArrays
from polyanchor.datasets.items import Items
from polyanchor.deploy.description import Description
from polyanchor.deploy.embedder import Embedder
from polyanchor.index.ingest import Pictures, embedded, open_data, renamed
from polyanchor.models.embedding import EmbeddingModel


def names(items):
    return [items.name(row) for row in range(len(items))]


def test_files_go_by_their_absolute_paths(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    for data in ("folder:photos", f"folder:{photos}"):
        items = open_data(data)
        assert names(items) == [
            str(photos / f"class{number}" / f"{image}.png") for number in range(6) for image in range(8)
        ]
        assert np.array_equal(items.inputs.read(9), Image.open(photos / "class1" / "1.png"))
    assert names(items.subset(torch.tensor([9]))) == [str(photos / "class1" / "1.png")]
    assert names(open_data("photos/class1/1.png")) == [str(photos / "class1" / "1.png")]


def test_a_list_of_files(photos):
    (photos / "list.csv").write_text("path,label\nclass1/1.png,cat\nclass0/0.png,dog\n")
    items = open_data(f"csv:{photos}/list.csv")
    assert names(items) == [str(photos / "class1" / "1.png"), str(photos / "class0" / "0.png")]


def test_what_lies_in_no_file_goes_by_source_and_name(tmp_path, monkeypatch):
    assert names(open_data("digits"))[:2] == ["digits#0/0000", "digits#1/0001"]
    pixels = ImageArrays(np.zeros((3, 2, 2), dtype=np.uint8), ["a", "b", "a"])
    monkeypatch.chdir(tmp_path)
    items = renamed(Items(pixels, torch.tensor([0, 1, 1])), "parquet:x.parquet")
    assert names(items) == [f"parquet:{tmp_path}/x.parquet#{name}" for name in ("a[0]", "b", "a[2]")]


def test_vectors_keep_their_names(tmp_path, monkeypatch):
    tensors = {"vectors": torch.eye(2), "labels": torch.tensor([0, 1])}
    save_file(tensors, tmp_path / "v.safetensors")
    save_file(tensors, tmp_path / "w.safetensors", {"polyanchor": '{"names": ["x", "y"]}'})
    monkeypatch.chdir(tmp_path)
    assert names(open_data("w.safetensors")) == ["x", "y"]
    assert names(open_data("features:v.safetensors")) == [f"features:{tmp_path}/v.safetensors#{row}" for row in (0, 1)]


def test_an_image_file_whose_name_is_not_utf8(photos):
    name = b"caf\xe9.png".decode(errors="surrogateescape")
    Image.new("RGB", (4, 4)).save(photos / name)
    with pytest.raises(ValueError, match=r"caf\\xe9\.png is not UTF-8"):
        open_data(str(photos / name))


def test_images_in_no_class_folder_have_no_label(photos):
    Image.new("RGB", (4, 4)).save(photos / "loose.png")
    items = open_data(f"folder:{photos}")
    entries, _ = embedded(items, Lengths())
    labels = dict(zip(entries.paths, entries.labels, strict=True))
    assert labels[str(photos / "loose.png")] is None and labels[str(photos / "class4" / "0.png")] == "class4"


class Lengths:
    """Stands in for an embedder of images."""

    def embed_items(self, items, *, on_bad, workers):
        from polyanchor.types import Embeddings

        return Embeddings(torch.eye(len(items)), items.labels, tuple(names(items))), ()


def test_vectors_with_and_without_a_model():
    items = Items(5 * torch.eye(6), torch.tensor([3, 4, 3, 4, 3, 4]), {3: "cat"}, tuple("abcdef"))
    entries, skipped = embedded(items, None)
    assert entries.vectors.equal(torch.eye(6)) and skipped == ()
    assert (entries.paths, entries.labels) == (list("abcdef"), ["cat", "4"] * 3)
    model = Embedder(EmbeddingModel(None, features=6, embedding_dim=4), Description(backbone="none", embedding_dim=4))
    torch.testing.assert_close(embedded(items, model)[0].vectors, model.embed(items.inputs))
    with pytest.raises(TypeError, match="an index without a model takes features:FILE, got images"):
        embedded(open_data("digits"), None)


def test_the_way_back_to_the_image(photos):
    pictures = Pictures()
    file = photos / "class1" / "1.png"
    assert np.array_equal(pictures.read(str(file)), Image.open(file))
    hash_file = file.rename(photos / "no#1.png")
    assert np.array_equal(pictures.read(str(hash_file)), Image.open(hash_file))
    digits = open_data("digits")
    assert np.array_equal(pictures.read("digits#3/0013"), digits.inputs.read(13))
    for path in (str(file), "digits#3/nothing", "gone:x#y", "x"):
        with pytest.raises(BadImageError):
            pictures.read(path)

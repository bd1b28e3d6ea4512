import io
import json
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from polyanchor.datasets.formats.vectors import read
from polyanchor.datasets.sources import open_source

VECTORS = torch.arange(12.0).view(6, 2)
LABELS = torch.tensor([0, 0, 1, 5, 5, 5])


def test_safetensors_with_names_and_a_split(tmp_path):
    said = {"names": list("abcdef"), "class_names": {"5": "five"}}
    arrays = {"vectors": VECTORS.half(), "labels": LABELS.int(), "split": torch.tensor([0, 0, 0, 1, 1, 2])}
    save_file(arrays, tmp_path / "x.safetensors", metadata={"polyanchor": json.dumps(said)})
    split = open_source(f"features:{tmp_path / 'x.safetensors'}")
    assert split.train.is_vectors
    assert torch.equal(split.train.inputs, VECTORS[:3])
    assert split.train.inputs.dtype == torch.float32
    assert split.gallery is not None
    assert (split.test.name(1), split.gallery.name(0), split.gallery.class_names) == ("e", "f", {5: "five"})


def test_npz_with_texts_for_labels(tmp_path):
    labels = np.array(["dog", "cat", "dog", "dog", "cat", "emu"])
    np.savez(tmp_path / "x.npz", vectors=VECTORS.numpy(), labels=labels, names=np.array(list("abcdef")))
    split = open_source(f"features:{tmp_path / 'x.npz'}", train_share=0.4)
    assert (split.train.labels.tolist(), split.train.name(1)) == ([0, 0], "e")
    assert split.train.class_names == {0: "cat", 1: "dog", 2: "emu"}
    assert split.test.labels.tolist() == [1, 1, 1, 2]


def test_errors(subtests, tmp_path):
    for arrays, message in (
        ({"vectors": VECTORS}, "labels missing; expected vectors"),
        ({"vectors": VECTORS, "labels": LABELS[:5]}, r"labels must have shape \(6,\)"),
        ({"vectors": VECTORS.view(6, 2, 1), "labels": LABELS}, "vectors must have shape"),
        ({"vectors": VECTORS * float("nan"), "labels": LABELS}, "vectors in float32 must be finite"),
        ({"vectors": VECTORS.double() * 1e300, "labels": LABELS}, "vectors in float32 must be finite"),
        ({"vectors": VECTORS.int(), "labels": LABELS}, "vectors must be floating point"),
        ({"vectors": VECTORS, "labels": LABELS.float()}, "labels must have an integer dtype"),
        ({"vectors": VECTORS, "labels": LABELS - 1}, "labels must be class ids of 0 or more, got -1"),
        (
            {"vectors": VECTORS, "labels": LABELS, "split": LABELS + 0},
            "split may hold 0 train, 1 test, 2 gallery",
        ),
    ):
        with subtests.test(message):
            save_file(arrays, tmp_path / "x.safetensors")
            with pytest.raises(ValueError, match=message):
                open_source(f"features:{tmp_path / 'x.safetensors'}")


def test_metadata_that_is_no_object(tmp_path):
    for text, message in (
        ("{", "is not JSON"),
        ("[]", "must be a JSON object"),
        ('{"class_names": ["cat"]}', "class_names must be an object such as"),
        ('{"class_names": {"cat": "0"}}', "class_names must be an object such as"),
        ('{"class_names": {"0": null}}', "class_names must be an object such as"),
        ('{"names": "abcdef"}', "names must be a list of texts, one per row, got 'abcdef'"),
        ('{"names": [1, 2, 3, 4, 5, 6]}', "names must be a list of texts"),
        ('{"names": ["a"]}', "names must be empty or one per row"),
    ):
        save_file({"vectors": VECTORS, "labels": LABELS}, tmp_path / "x.safetensors", metadata={"polyanchor": text})
        with pytest.raises(ValueError, match=message):
            open_source(f"features:{tmp_path / 'x.safetensors'}")


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_no_pickle_is_loaded(tmp_path):
    labels = np.array([Bomb()] * 6, dtype=object)
    np.savez(tmp_path / "x.npz", vectors=VECTORS.numpy(), labels=labels)
    with pytest.raises(ValueError, match="labels holds Python objects"):
        open_source(f"features:{tmp_path / 'x.npz'}")
    np.save(tmp_path / "y.npy", labels, allow_pickle=True)
    (tmp_path / "y.npy").rename(tmp_path / "y.npz")
    with pytest.raises(ValueError, match=r"y\.npz: damaged or not a \.npz file; write one with numpy\.savez"):
        open_source(f"features:{tmp_path / 'y.npz'}")  # numpy would advise to allow pickles


def test_files_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match=r"features:x.txt: expected a file that ends in \.safetensors, .*got '\.txt'"):
        open_source("features:x.txt")
    with pytest.raises(FileNotFoundError):
        open_source(f"features:{tmp_path / 'x.npz'}")


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_damaged_file_is_bad_input(tmp_path, suffix):
    file = tmp_path / f"x{suffix}"
    for content in (b"PK\x03\x04 and no more", b"", b"text"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged"):
            open_source(f"features:{file}")


def test_an_array_cut_short_is_not_taken_for_objects(tmp_path):
    stream = io.BytesIO()
    np.save(stream, VECTORS.numpy())
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("readme", b"no array")
        archive.writestr("vectors.npy", stream.getvalue()[:-4])
    with pytest.raises(ValueError, match=r"x\.npz: EOF: reading array data"):
        open_source(f"features:{tmp_path / 'x.npz'}")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_damaged_byte_is_bad_input_or_does_not_matter(tmp_path, save):
    file = tmp_path / "x.npz"
    save(file, vectors=VECTORS.numpy(), labels=np.array(list("abcdea")), names=np.array(list("abcdef")))
    content = file.read_bytes()
    refused = 0
    for place in range(len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            read(file)
        except ValueError as error:
            refused += str(error).startswith(f"features:{file}")
    assert refused > len(content) / 2


# What other programs write; the witness is the plain file that test_errors and the tests above are about.
HELD = {
    "bytes": ({"labels": np.array([b"cat", b"cat", b"dog", b"emu", b"emu", b"emu"])}, [0, 0, 1, 2, 2, 2]),
    "bool": ({"labels": LABELS.numpy() > 0}, [0, 0, 1, 1, 1, 1]),
    "unsigned": ({"labels": LABELS.numpy().astype("u8")}, LABELS.tolist()),
    "beyond int64": ({"labels": LABELS.numpy().astype("u8") + 2**63}, [0, 0, 1, 2, 2, 2]),
    "big-endian": ({"vectors": VECTORS.numpy().astype(">f8"), "labels": LABELS.numpy().astype(">i4")}, LABELS.tolist()),
    "int8": ({"vectors": VECTORS.numpy().astype("i1"), "labels": LABELS.numpy()}, LABELS.tolist()),
    "uint8": ({"vectors": VECTORS.numpy().astype("u1"), "labels": LABELS.numpy()}, LABELS.tolist()),
    "other words": ({"Embeddings": VECTORS.numpy(), "targets": LABELS.numpy()}, LABELS.tolist()),
    "more words": ({"X": VECTORS.numpy(), "class_ids": LABELS.numpy()}, LABELS.tolist()),
}


@pytest.mark.parametrize("case", HELD)
def test_arrays_as_people_have_them(tmp_path, case):
    arrays, labels = HELD[case]
    np.savez(tmp_path / "x.NPZ", **({} if "X" in arrays or "Embeddings" in arrays else {"vectors": VECTORS}) | arrays)
    (tmp_path / "x.NPZ.npz").rename(tmp_path / "x.NPZ")
    items = read(tmp_path / "x.NPZ").items
    assert torch.equal(items.inputs, VECTORS)
    assert items.inputs.dtype == torch.float32
    assert items.labels.tolist() == labels
    if case == "beyond int64":
        assert items.class_names[2] == str(2**63 + 5)


@pytest.mark.parametrize(
    ("vectors", "labels"),
    [
        ("x", "x_labels"),
        ("x", "labels"),
        ("embeddings", "targets"),
        ("train_embeddings", "train_labels"),
        ("train_features", "train_targets"),
    ],
)
def test_the_labels_of_an_npy_file_lie_beside_it(tmp_path, vectors, labels):
    np.save(tmp_path / f"{vectors}.npy", VECTORS.numpy())
    with pytest.raises(ValueError, match=f"labels missing; put them beside it, in {vectors}_labels.npy or labels.npy"):
        read(tmp_path / f"{vectors}.npy")
    np.save(tmp_path / f"{labels}.npy", LABELS.numpy())
    items = read(tmp_path / f"{vectors}.npy").items
    assert torch.equal(items.inputs, VECTORS)
    assert torch.equal(items.labels, LABELS)


def test_tensors_of_torch(tmp_path):
    torch.save({"embeddings": VECTORS.bfloat16(), "targets": ["a", "a", "b", "c", "c", "c"]}, tmp_path / "x.pt")
    items = read(tmp_path / "x.pt").items
    assert torch.equal(items.inputs, VECTORS)
    assert (items.labels.tolist(), items.class_names[2]) == ([0, 0, 1, 2, 2, 2], "c")


def test_a_split_in_words(tmp_path):
    words = np.array(["Train", "train", "train", "test", "test", "VAL"])
    np.savez(tmp_path / "x.npz", vectors=VECTORS, labels=LABELS, split=words)
    assert read(tmp_path / "x.npz").parts.tolist() == [0, 0, 0, 1, 1, 3]
    np.savez(tmp_path / "x.npz", vectors=VECTORS, labels=LABELS, split=np.array(["train"] * 3 + ["val"] * 3))
    listing = read(tmp_path / "x.npz")
    assert listing.parts.tolist() == [0, 0, 0, 1, 1, 1]
    assert "val is what the measures are taken on" in listing.notes[0]
    np.savez(tmp_path / "x.npz", vectors=VECTORS, labels=LABELS, split=np.array(["train"] * 3 + ["dev"] * 3))
    with pytest.raises(ValueError, match=r"x\.npz: split: the split column may hold .*got 'dev'"):
        read(tmp_path / "x.npz")


def test_what_stays_refused_says_why(subtests, tmp_path):
    for arrays, message in (
        ({"vectors": VECTORS.numpy().astype("c8"), "labels": LABELS}, "vectors must be real numbers .*got complex64"),
        ({"feats": VECTORS, "emb": VECTORS, "labels": LABELS}, "may be any of feats, emb; call one of them vectors"),
        ({"vectors": VECTORS, "labels": LABELS[:, None]}, r"labels must have shape \(6,\), one per row, got \(6, 1\)"),
    ):
        with subtests.test(message):
            np.savez(tmp_path / "x.npz", **arrays)
            with pytest.raises(ValueError, match=rf"x\.npz: .*{message}"):
                read(tmp_path / "x.npz")

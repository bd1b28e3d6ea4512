"""Files for other programs: what onnxruntime and torch.export make of them is what the embedder gives."""

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from polyanchor.deploy import export as module
from polyanchor.deploy.embedder import open_embedder
from polyanchor.deploy.export import ExportDiffersError, export
from tests.deploy.embedders import image_embedder, vector_embedder

DOCS = Path(__file__).parents[2] / "docs" / "deploying.md"


@pytest.fixture(scope="module")
def onnx(tmp_path_factory):
    """An embedder and its ONNX file, with the photographs that the page's code asks for."""
    folder = tmp_path_factory.mktemp("onnx")
    embedder = image_embedder()
    done = export(embedder, "onnx", folder / "photos.onnx")
    rng = np.random.default_rng(0)
    for name, shape in ("a.jpg", (40, 57)), ("b.jpg", (31, 24)):
        smooth = Image.fromarray(rng.integers(0, 256, (5, 5, 3)).astype("uint8")).resize(
            shape, Image.Resampling.BICUBIC
        )
        smooth.save(folder / name)
    return embedder, done, folder


@pytest.mark.slow
def test_onnxruntime_gives_the_embedders_vectors(onnx):
    embedder, done, folder = onnx
    assert done.files == (folder / "photos.onnx", folder / "photos.onnx.json")
    session = onnxruntime.InferenceSession(str(done.files[0]))
    (told,) = session.get_inputs()
    assert (told.name, told.shape, told.type) == ("pixels", ["batch", 16, 16, 3], "tensor(uint8)")
    (told,) = session.get_outputs()
    assert (told.name, told.shape, told.type) == ("embeddings", ["batch", 8], "tensor(float)")
    rng = np.random.default_rng(1)
    for batch in (1, 2, 7):
        images = rng.integers(0, 256, (batch, 18, 18, 3)).astype("uint8")
        want = embedder.embed([Image.fromarray(image) for image in images])
        (got,) = session.run(None, {"pixels": images[:, 1:17, 1:17]})
        torch.testing.assert_close(torch.from_numpy(got), want, rtol=0, atol=1e-5)
    assert done.about["largest_difference"] < 1e-5
    assert done.about["compared_with"].startswith("onnxruntime ")


@pytest.mark.slow
def test_the_code_of_the_page_gives_the_embedders_vectors(onnx, monkeypatch):
    embedder, _, folder = onnx
    monkeypatch.chdir(folder)
    code = re.search(r"<!-- onnx -->\n```python\n(.*?)```", DOCS.read_text(), re.DOTALL)[1]
    namespace = {}
    exec(code, namespace)
    want = embedder.embed([Image.open("a.jpg"), Image.open("b.jpg")])
    torch.testing.assert_close(torch.from_numpy(namespace["vectors"]), want, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_file_describes_itself(onnx):
    embedder, done, folder = onnx
    beside = json.loads((folder / "photos.onnx.json").read_text())
    assert beside == done.about
    assert beside["before"]["resize"] == 18
    assert beside["inside"] == {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    assert beside["fingerprint"] == embedder.fingerprint
    metadata = onnxruntime.InferenceSession(str(done.files[0])).get_modelmeta().custom_metadata_map
    compared = {"largest_difference", "compared_with"}
    assert json.loads(metadata["polyanchor"]) == {k: v for k, v in beside.items() if k not in compared}


@pytest.mark.slow
def test_vectors_to_onnx(tmp_path):
    embedder = vector_embedder()
    export(embedder, "onnx", tmp_path / "new" / "head.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "new" / "head.onnx"))
    for batch in (1, 4):
        vectors = torch.randn(batch, 6)
        (got,) = session.run(None, {"vectors": vectors.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), embedder.embed(vectors), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("pixels", ["uint8", "float"])
def test_pt2(tmp_path, pixels):
    embedder = image_embedder()
    done = export(embedder, "pt2", tmp_path / "photos.pt2", pixels=pixels)
    extra = {"polyanchor.json": ""}
    loaded = torch.export.load(tmp_path / "photos.pt2", extra_files=extra).module()
    images = torch.randint(0, 256, (6, 18, 18, 3), dtype=torch.uint8)
    want = embedder.embed([Image.fromarray(image.numpy()) for image in images])
    inner = images[:, 1:17, 1:17]
    for batch in (1, 6):
        given = inner[:batch] if pixels == "uint8" else inner[:batch].permute(0, 3, 1, 2) / 255
        torch.testing.assert_close(loaded(given), want[:batch], rtol=0, atol=1e-5)
    assert json.loads(extra["polyanchor.json"])["input"]["shape"] == done.about["input"]["shape"]
    assert done.about["compared_with"].startswith("torch.export of torch ")


def test_safetensors_is_the_saved_folder(tmp_path):
    embedder = image_embedder()
    done = export(embedder, "safetensors", tmp_path / "saved")
    assert [file.name for file in done.files] == ["README.md", "config.json", "model.safetensors"]
    assert open_embedder(tmp_path / "saved").fingerprint == embedder.fingerprint
    assert done.about["largest_difference"] == 0
    with pytest.raises(FileExistsError, match="not an empty folder"):
        export(embedder, "safetensors", tmp_path / "saved")


def spoilt(embedder, **options):
    graph = module_graph_of(embedder, **options)
    graph.module.mean += 0.01
    return graph


module_graph_of = module.graph_of


@pytest.mark.slow
def test_a_file_that_differs_is_not_left(tmp_path, monkeypatch):
    (tmp_path / "old.pt2").write_text("precious")
    monkeypatch.setattr(module, "graph_of", spoilt)
    with pytest.raises(ExportDiffersError, match=r"differs from the model by .*, allowed is 1e-04; old\.pt2 was not"):
        export(image_embedder(), "pt2", tmp_path / "old.pt2")
    assert [file.name for file in tmp_path.iterdir()] == ["old.pt2"]
    assert (tmp_path / "old.pt2").read_text() == "precious"


def test_a_folder_that_differs_is_not_left(tmp_path, monkeypatch):
    def other(place):
        return image_embedder(seed=1)

    monkeypatch.setattr(module.Embedder, "from_pretrained", other)
    with pytest.raises(ExportDiffersError, match="saved was not written"):
        export(image_embedder(), "safetensors", tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_without_onnxruntime_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("polyanchor.deploy.export.find_spec", lambda name: None)
    done = export(vector_embedder(), "onnx", tmp_path / "head.onnx")
    assert done.about["largest_difference"] is None
    assert done.about["compared_with"] == "nothing: onnxruntime is not installed"


def test_errors(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="to must be one of 'onnx', .*, got 'onxx'; did you mean 'onnx'"):
        export(vector_embedder(), "onxx", tmp_path / "head.onnx")
    with pytest.raises(ValueError, match=r"--out must end in \.pt2 for pt2"):
        export(vector_embedder(), "pt2", tmp_path / "head.onnx")
    monkeypatch.setattr("polyanchor.deploy.export._LIMIT", 100)
    with pytest.raises(ValueError, match="2 GiB at most, the weights take 0.0 GiB; use pt2"):
        export(vector_embedder(), "onnx", tmp_path / "head.onnx")
    assert list(tmp_path.iterdir()) == []

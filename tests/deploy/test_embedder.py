"""The same vectors by every way: the run itself, the embedder made of it, saved, loaded, pushed and fetched."""

import json
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from PIL import Image

import polyanchor as pa
from polyanchor.datasets.formats.vectors import read
from polyanchor.datasets.images import BadImageError
from polyanchor.datasets.sources import open_items
from polyanchor.deploy.description import Description
from polyanchor.deploy.embedder import Embedder, open_embedder
from polyanchor.models.embedding import create_model
from polyanchor.runs.load import embed_run
from tests.deploy.embedders import image_embedder, vector_embedder


@pytest.fixture
def finished(trained_on_photos):
    return trained_on_photos


def by_hand(embedder, files):
    """PIL's resize and crop of whole files, arithmetic of numpy, the bare network."""
    p = embedder.description.preprocessing
    rows = []
    for file in files:
        image = Image.open(file).convert("RGB").resize((p.resize, p.resize), Image.Resampling.BILINEAR)
        rim = (p.resize - p.size) // 2
        pixels = np.asarray(image)[rim : rim + p.size, rim : rim + p.size] / 255
        rows.append(((pixels - p.mean) / p.std).transpose(2, 0, 1))
    with torch.no_grad():
        return embedder.model.eval()(torch.from_numpy(np.stack(rows)).float())


def test_images_by_path_and_in_memory(photos):
    embedder = image_embedder()
    files = sorted(photos.rglob("*.png"))[:5]
    mixed = [files[0], str(files[1]), Image.open(files[2]), Image.open(files[3]).copy(), files[4]]
    got = embedder.embed(mixed, batch_size=2)
    torch.testing.assert_close(got, by_hand(embedder, files), rtol=0, atol=5e-3)  # PIL rounds before the crop
    assert torch.equal(got, embedder.embed(files, batch_size=2))
    assert (got.dtype, got.device.type, got.requires_grad) == (torch.float32, "cpu", False)
    torch.testing.assert_close(got.norm(dim=1), torch.ones(5))


def test_a_picture_in_memory_is_turned_upright_and_left_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (18, 24, 3)).astype("uint8")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(np.rot90(pixels, 3).copy()).save(tmp_path / "upright.png")
    opened = Image.open(tmp_path / "turned.png")
    vectors = image_embedder().embed([tmp_path / "upright.png", tmp_path / "turned.png", opened])
    assert torch.equal(vectors[0], vectors[1]) and torch.equal(vectors[0], vectors[2])
    assert opened.size == (24, 18)


def test_a_run_gives_what_the_command_writes(finished, photos, tmp_path):
    embed_run(finished, tmp_path / "all.safetensors", data=f"folder:{photos}")
    want = read(tmp_path / "all.safetensors").items
    embedder = Embedder.from_run(finished)
    items = open_items(f"folder:{photos}", root="data")
    got, skipped = embedder.embed_items(items)
    assert torch.equal(got.vectors, want.inputs)
    assert skipped == ()
    assert torch.equal(embedder.embed([photos / items.name(row) for row in range(48)]), want.inputs)
    assert (embedder.embedding_dim, embedder.takes_images) == (8, True)


def test_saved_and_loaded_it_is_the_same(finished, photos, tmp_path):
    embedder = Embedder.from_run(finished)
    assert embedder.save_pretrained(tmp_path / "new" / "saved") is None
    assert sorted(file.name for file in (tmp_path / "new" / "saved").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["saved"]  # nothing is left of the writing
    loaded = pa.Embedder.from_pretrained(tmp_path / "new" / "saved")
    files = sorted(photos.rglob("*.png"))
    assert torch.equal(loaded.embed(files), embedder.embed(files))
    assert loaded.fingerprint == embedder.fingerprint == open_embedder(finished).fingerprint
    assert loaded.description == embedder.description
    assert not loaded.training


def test_vectors(tmp_path):
    embedder = vector_embedder()
    embedder.save_pretrained(tmp_path / "saved")
    loaded = open_embedder(tmp_path / "saved")
    x = torch.randn(5, 6, dtype=torch.float64)
    want = x.float() @ embedder.model.head.weight.T + embedder.model.head.bias
    torch.testing.assert_close(loaded.embed(x, batch_size=2), want.detach() / want.detach().norm(dim=1, keepdim=True))
    assert (loaded.takes_images, loaded.embedding_dim) == (False, 4)
    assert loaded.embed(x[:0]).shape == (0, 4)
    assert image_embedder().embed([]).shape == (0, 8)


def test_the_fingerprint_knows_all_that_changes_the_vectors():
    same = image_embedder().fingerprint
    assert image_embedder().fingerprint == same
    changes = [{"size": 15}, {"resize": 17}, {"aspect": "squeeze"}, {"mean": (0.4, 0.5, 0.5)}, {"std": (1, 0.3, 0.4)}]
    others = [image_embedder(**change).fingerprint for change in [*changes, {"pooling": "avg"}, {"seed": 1}]]
    changed = image_embedder()
    changed.model.backbone.bn1.running_mean[0] += 1e-3
    assert len({same, *others, changed.fingerprint}) == 9
    moved = image_embedder().to(memory_format=torch.contiguous_format)
    assert moved.fingerprint == same


def test_gradients_and_mode_are_the_users():
    embedder = image_embedder()
    assert embedder(torch.rand(2, 3, 16, 16)).requires_grad
    embedder.train()
    embedder.embed([Image.new("RGB", (20, 20))])
    assert embedder.training


@pytest.mark.parametrize(
    ("inputs", "error", "words"),
    [
        ("a.png", BadImageError, "a.png cannot be read: the file is missing"),
        (7, TypeError, "inputs must be images .*, got int"),
        (b"no image", BadImageError, "image 0 cannot be read"),
        (np.zeros((2, 9, 9, 3), "int32"), TypeError, "floating vectors or uint8 images, got int32"),
        (np.zeros((2, 9, 9), "uint8"), ValueError, "with C 1, 3 or 4, got .2, 9, 9."),
        ([np.zeros((2, 9, 9, 3), "uint8")], ValueError, "one image, got uint8 .2, 9, 9, 3. at 0"),
        (np.zeros((2, 9), "float32"), TypeError, "takes images .*, got floating .2, 9."),
        (torch.rand(2, 3, 16, 16), TypeError, "takes images .paths, PIL images, bytes, uint8 arrays., got floating"),
        ([torch.rand(3, 16, 16)], TypeError, "got Tensor at place 0"),
        (["nowhere/a.png"], BadImageError, "nowhere/a.png cannot be read: the file is missing"),
    ],
)
def test_what_is_no_image(inputs, error, words):
    with pytest.raises(error, match=words):
        image_embedder().embed(inputs)


def test_one_image_in_every_form(photos):
    embedder, file = image_embedder(), photos / "class0" / "0.png"
    want = embedder.embed([str(file)])
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    pixels = np.asarray(picture)
    forms = [str(file), file, picture, file.read_bytes(), pixels, pixels[None], (one for one in [file]), (file,)]
    for form in forms:
        assert torch.equal(embedder.embed(form), want)
    grey = np.asarray(picture.convert("L"))
    assert torch.equal(embedder.embed(grey), embedder.embed(Image.fromarray(grey)))
    assert torch.equal(embedder.embed(grey[..., None]), embedder.embed(Image.fromarray(grey)))
    several = embedder.embed([pixels, str(file), file.read_bytes()])
    torch.testing.assert_close(several, want.expand(3, -1))


def test_vectors_as_arrays_and_no_batch_of_none():
    about = Description(backbone="none", embedding_dim=2)
    embedder = Embedder(create_model("none", features=6, embedding_dim=2), about)
    vectors = torch.randn(3, 6)
    assert torch.equal(embedder.embed(vectors.numpy()), embedder.embed(vectors))
    assert torch.equal(embedder.embed(vectors.numpy().astype(">f4")), embedder.embed(vectors))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        embedder.embed(vectors, batch_size=0)
    with pytest.raises(TypeError, match="takes vectors, an .N, F. floating tensor or array, got str"):
        embedder.embed("a.png")


def test_an_unreadable_image_is_named(photos, tmp_path):
    broken = photos / "class1" / "2.png"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(BadImageError, match="class1/2.png"):
        image_embedder().embed([photos / "class0" / "0.png", broken])
    with pytest.raises(BadImageError, match="class1/2.png"):
        image_embedder().embed([Image.open(broken)])


def test_what_is_no_vector():
    with pytest.raises(ValueError, match=r"vectors of shape \(N, 6\), got \(2, 5\)"):
        vector_embedder().embed(torch.rand(2, 5))
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 2 rows"):
        vector_embedder().embed(torch.tensor([[1.0] * 6, [float("nan")] * 6]))
    with pytest.raises(TypeError, match="takes vectors"):
        vector_embedder().embed(["a.png"])


def test_items_of_the_other_kind(photos):
    with pytest.raises(TypeError, match="takes vectors, got items that are images"):
        vector_embedder().embed_items(open_items(f"folder:{photos}", root="data"))


def test_a_description_of_another_model():
    with pytest.raises(ValueError, match="gives 4 dimensions, its description says 5"):
        Embedder(create_model("none", features=6, embedding_dim=4), Description(backbone="none", embedding_dim=5))
    with pytest.raises(ValueError, match="needs preprocessing"):
        Embedder(create_model("test_resnet", embedding_dim=4), Description(backbone="test_resnet", embedding_dim=4))


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "thesis.tex").write_text("precious")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        vector_embedder().save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "thesis.tex").read_text() == "precious"


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("polyanchor.deploy.embedder.write_json", full)
    with pytest.raises(OSError, match="No space left"):
        vector_embedder().save_pretrained(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def saved(tmp_path):
    vector_embedder().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_half_a_copy(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "half")
    (tmp_path / "half" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="has no model.safetensors"):
        open_embedder(tmp_path / "half")
    (tmp_path / "half" / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes()[:-20])
    with pytest.raises(ValueError, match="not a safetensors file"):
        open_embedder(tmp_path / "half")


def test_files_of_two_models(saved, tmp_path):
    vector_embedder().save_pretrained(tmp_path / "other")  # other random weights
    shutil.copy(tmp_path / "other" / "model.safetensors", saved)
    with pytest.raises(ValueError, match="not of one model"):
        open_embedder(saved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"embedding_dim": 5}, "gives 4 dimensions, its description says 5"),
        ({"backbone": "resnet18"}, "the weights are not those of resnet18"),
        ({"backbone": "local-dir:/etc"}, "must be a timm model name, 'bn_inception' or 'none'"),
        ({"format": "polyanchor-embedder-9"}, "another version"),
        ({"color": 1}, "color: Extra inputs are not permitted"),
        ({"fingerprint": None}, "has no fingerprint"),
    ],
)
def test_a_config_that_does_not_fit(saved, change, words):
    file = saved / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=words):
        open_embedder(saved)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "vit"}'])
def test_a_config_of_something_else(saved, text):
    (saved / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        open_embedder(saved)


def test_what_is_neither(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a run's folder nor a saved embedder: there is no such folder"):
        open_embedder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"it has no config\.toml and no config\.json"):
        open_embedder(tmp_path)


def test_pushed_and_fetched(saved, tmp_path, monkeypatch):
    """The hub as a folder: what upload_folder is given is what snapshot_download gives."""
    hub = tmp_path / "hub"

    def create(api, repo_id, **options):
        return type("Url", (), {"repo_id": f"ann/{repo_id}"})

    def upload(api, *, repo_id, folder_path, **options):
        shutil.copytree(folder_path, hub / repo_id)
        return "https://hub/commit/1"

    monkeypatch.setattr(HfApi, "create_repo", create)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    monkeypatch.setattr("polyanchor.deploy.embedder.snapshot_download", lambda name, **options: hub / name)
    embedder = open_embedder(saved)
    assert embedder.push_to_hub("heads") == "https://hub/commit/1"
    assert Embedder.from_pretrained("ann/heads").fingerprint == embedder.fingerprint
    assert ModelCard.load(hub / "ann" / "heads" / "README.md").data.library_name == "polyanchor"


def test_the_hub_does_not_answer(monkeypatch):
    def nothing(name, **options):
        raise OSError("Got: ConnectError\nplease check")

    monkeypatch.setattr("polyanchor.deploy.embedder.snapshot_download", nothing)
    with pytest.raises(
        FileNotFoundError, match="ann/heads is not a folder here, and the Hugging Face hub gave no mode"
    ):
        Embedder.from_pretrained("ann/heads")

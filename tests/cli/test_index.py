"""`polyanchor index` and `polyanchor search` on a small run: build, add, remove, search, refuse."""

import json
import shutil

import pytest
import torch
from PIL import Image

from polyanchor._optional import load
from polyanchor.cli.app import run
from polyanchor.deploy.embedder import Embedder
from polyanchor.index import qdrant_store as qdrant
from tests.tiny_runs import arguments


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Where a finished run is kept, once the first test has made it."""
    return tmp_path_factory.mktemp("trained") / "run"


@pytest.fixture
def place(photos, tmp_path, trained, capsys, monkeypatch):
    """A folder with `photos` and the finished run `run`, where the commands are given."""
    monkeypatch.chdir(tmp_path)
    if not trained.exists():
        assert run(["train", *arguments("photos", "run.epochs=1"), "--out", str(trained)]) == 0
        capsys.readouterr()
    shutil.copytree(trained, "run")
    return tmp_path


@pytest.fixture
def said(capsys):
    def of(*words, code=0):
        assert run([*words]) == code, capsys.readouterr().err
        streams = capsys.readouterr()
        if code:
            assert "Traceback" not in streams.err and streams.out == ""
            return " ".join(streams.err.split())
        return json.loads(streams.out) if "--json" in words else streams.out + streams.err

    return of


def hits(answer):
    return [[(hit["path"], hit["label"]) for hit in query["hits"]] for query in answer["queries"]]


def test_from_photos_to_hits(place, said):
    made = said("index", "build", "run", "folder:photos", "--out", "photos.index", "--json")
    model = Embedder.from_run("run")
    assert made == {
        "index": "photos.index",
        "items": 48,
        "dim": 8,
        "kind": "exact",
        "added": 48,
        "model": str(place / "run"),
        "fingerprint": model.fingerprint,
    }
    files = [place / "photos" / f"class{number}" / f"{image}.png" for number in range(6) for image in range(8)]
    cosines = model.embed(files) @ model.embed([files[10]])[0]
    want = [(str(files[row]), files[row].parent.name) for row in cosines.argsort(descending=True, stable=True)[:5]]
    answer = said("search", "photos.index", "photos/class1/2.png", "--k", "5", "--json")
    assert hits(answer) == [want] and want[0][0] == str(files[10])
    [query] = answer["queries"]
    assert query["query"] == "photos/class1/2.png"
    assert [hit["rank"] for hit in query["hits"]] == [1, 2, 3, 4, 5]
    scores = torch.tensor([hit["score"] for hit in query["hits"]])
    torch.testing.assert_close(scores, cosines.sort(descending=True).values[:5])
    table = said("search", "photos.index", "photos/class1/2.png", "photos/class2/0.png", "--k", "2")
    assert "1.0000   10   class1   photos/class1/2.png" in table and "photos/class2/0.png" in table


def test_add_and_remove(place, said):
    said("index", "build", "run", "folder:photos", "--out", "photos.index")
    Image.new("RGB", (16, 16), "red").save("red.png")
    added = said("index", "add", "photos.index", "red.png", "folder:photos", "--json")
    assert (added["added"], added["replaced"], added["items"]) == (1, 48, 49)
    assert hits(said("search", "photos.index", "red.png", "--k", "1", "--json")) == [[(str(place / "red.png"), None)]]
    removed = said("index", "remove", "photos.index", "red.png", "photos/class0/0.png", "--id", "7", "--json")
    assert (removed["removed"], removed["items"]) == (3, 46)
    assert "has no item 'red.png'; nothing was removed" in said("index", "remove", "photos.index", "red.png", code=2)
    assert "photos.index: 46 items, 8 columns, exact" in (info := said("index", "info", "photos.index"))
    assert f"model: {place}/run, fingerprint" in info


def test_the_run_s_own_data_and_the_check_of_an_approximate_index(place, said):
    said("index", "build", "run", "--out", "all.index", "--kind", "hnsw")
    check = said("index", "check", "all.index", "--k", "3", "--queries", "20", "--json")
    assert (check["recall"], check["queries"], check["k"], check["kind"]) == (1.0, 20, 3, "hnsw")
    assert "all.index, hnsw: recall@10 1.0000 over 48 queries" in said("index", "--check", "all.index")
    assert said("index", "build", "run", "--out", "test.index", "--split", "test", "--json")["items"] == 16
    assert "its recall is 1 by definition" in said("index", "check", "test.index")
    near = said("search", "all.index", "photos/class1/2.png", "--k", "4", "--json")
    assert hits(near) == hits(said("search", "all.index", "photos/class1/2.png", "--k", "4", "--exact", "--json"))


def test_vectors_of_a_file(place, said):
    said("embed", "run", "--split", "test", "--out", "test.safetensors")
    said("index", "build", "run", "folder:photos", "--out", "photos.index")
    answer = hits(said("search", "photos.index", "test.safetensors", "--k", "1", "--json"))
    assert answer == [
        [(str(place / "photos" / f"class{number}" / f"{image}.png"), f"class{number}")]
        for number in (4, 5)
        for image in range(8)
    ]
    said("index", "build", "test.safetensors", "--out", "vectors.index")
    assert hits(said("search", "vectors.index", "test.safetensors", "--k", "1", "--json"))[0] == [
        ("class4/0.png", "class4")
    ]
    assert "made for vectors alone" in said("search", "vectors.index", "photos/class0/0.png", code=2)
    assert "searched alone, got 2" in said("search", "vectors.index", "test.safetensors", "photos/class0/0.png", code=2)


@pytest.mark.slow
def test_features_go_through_the_head_that_takes_them(place, said):
    said("embed", "run", "--split", "all", "--features", "--out", "features.safetensors")
    settings = (
        "data.source=features:features.safetensors",
        "model.backbone=none",
        "run.epochs=1",
        "batches.classes_per_batch=2",
    )
    words = [f"--{setting}" for setting in (*settings, "data.val_share=0")]
    said("train", *words, "--out", "head")
    said("index", "build", "head", "features.safetensors", "--out", "head.index")
    answer = said("search", "head.index", "features.safetensors", "--k", "1", "--json")
    assert [query["query"] for query in answer["queries"]] == [query["hits"][0]["path"] for query in answer["queries"]]


def test_a_picture_of_the_hits(place, said):
    said("index", "build", "run", "folder:photos", "--out", "photos.index")
    said("search", "photos.index", "photos/class1/2.png", "photos/class0/0.png", "--k", "3", "--picture", "hits.png")
    assert Image.open("hits.png").height > 2 * 120
    wrong = said("search", "photos.index", "photos/class1/2.png", "--picture", "hits.docx", code=2)
    assert "--picture must end in .png or .jpg, got hits.docx" in wrong


@pytest.mark.slow
def test_another_model_is_refused(place, said, capsys):
    said("index", "build", "run", "folder:photos", "--out", "photos.index")
    run(["train", *arguments("photos", "run.epochs=1", "run.seed=1"), "--out", "other"])
    capsys.readouterr()
    made = Embedder.from_run("run").fingerprint[:12]
    for words in (["search", "photos.index", "photos/class0/0.png"], ["index", "add", "photos.index", "folder:photos"]):
        err = said(*words, "--model", "other", code=2)
        assert f"was made with the model {made} of {place}/run, got the model" in err
    (place / "run").rename(place / "moved")
    assert "give the model it was made with" in said("search", "photos.index", "photos/class0/0.png", code=2)
    assert said("search", "photos.index", "photos/class0/0.png", "--model", "moved", "--k", "1", "--json")


def test_images_that_cannot_be_read(place, said):
    (place / "photos" / "class3" / "0.png").write_bytes(b"no image")
    assert "class3/0.png cannot be read" in said("index", "build", "run", "folder:photos", "--out", "a.index", code=2)
    assert not (place / "a.index").exists()
    made = said("index", "build", "run", "folder:photos", "--out", "a.index", "--on-bad-image", "skip")
    assert "a.index: 47 items" in made and "1 image could not be read and was left out" in made
    (place / "photos" / "class3" / "1.png").write_bytes(b"no image")
    assert "cannot be read" in said("index", "add", "a.index", "folder:photos", code=2)
    assert "47 items" in said("index", "info", "a.index")
    for query, words in (("photos/class3/0.png", "not an image"), ("nowhere.png", "the file is missing")):
        assert f"{query} cannot be read: {words}; a query is an image" in said("search", "a.index", query, code=2)


def test_an_empty_index_and_more_hits_than_items(place, said):
    said("index", "build", "run", "photos/class0/0.png", "photos/class0/1.png", "--out", "two.index")
    assert "two.index holds 2 items, fewer than --k 10" in said("search", "two.index", "photos/class0/0.png")
    said("index", "remove", "two.index", "--id", "0", "--id", "1")
    assert "two.index is empty; put something in" in said("search", "two.index", "photos/class0/0.png", code=2)
    assert "a check needs 2 or more" in said("index", "check", "two.index", code=2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Local mode performs exact")  # no server here
def test_the_same_commands_on_a_server(place, said, monkeypatch):
    client = load("qdrant_client", "qdrant").QdrantClient(":memory:")
    asked = []
    monkeypatch.setattr(qdrant, "connect", lambda address: asked.append(address) or client)
    store = "--store", "qdrant:http://there:6333"
    for words in ([], [*store]):
        said("index", "build", "run", "folder:photos", "--out", "photos.index", *words)
        assert said("index", "add", "photos.index", "photos/class0/0.png", *words, "--json")["replaced"] == 1
        assert said("index", "remove", "photos.index", "photos/class0/0.png", *words, "--json")["items"] == 47
    here, there = (
        said("search", "photos.index", "photos/class0/0.png", "photos/class5/0.png", *words, "--json")
        for words in ([], [*store])
    )
    assert hits(here) == hits(there)
    assert said("index", "check", "photos.index", *store, "--json")["recall"] == 1
    assert "47 items, 8 columns, exact" in said("index", "info", "photos.index", *store)
    assert set(asked) == {"http://there:6333"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["index", "build", "run", "folder:photos", "--out", "photos"], "photos holds class0, so no index can begin"),
        (["index", "build", "run", "nowhere", "--out", "a"], "the data source must be one of"),
        (["index", "build", "run", "--out", "a", "--split", "tests"], "did you mean 'test'"),
        (["index", "build", "run", "--out", "a", "--kind", "flat"], "kind must be one of 'exact', 'hnsw', 'ivf'"),
        (["index", "build", "run", "--out", "a", "--on-bad-image", "skp"], "did you mean 'skip'"),
        (["index", "build", "photos", "folder:photos", "--out", "a"], "neither a run's folder nor a saved embedder"),
        (["index", "remove", "photos"], "nothing to remove: name paths, or --id"),
        (
            ["index", "info", "photos"],
            "photos is no index: it has no index.json; make one with: polyanchor index build",
        ),
        (["index", "--check", "photos", "info"], "--check takes no further command"),
        (["search", "photos", "x.png", "--store", "redis:x"], "--store must be qdrant:http://HOST:PORT, got 'redis:x'"),
    ],
)
def test_errors(words, message, place, said):
    assert message in said(*words, code=2)
    assert not (place / "a").exists()

"""A collection of qdrant-client's own memory against the index in a folder."""

import pytest
import torch

from polyanchor._optional import load
from polyanchor.index import qdrant_store as qdrant
from polyanchor.index.folder_store import FolderStore
from polyanchor.index.qdrant_store import QdrantStore, connect, id_of
from polyanchor.index.types import About, Entries
from tests.index.vectors import entries, unit

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")  # no server here


@pytest.fixture
def client():
    return load("qdrant_client", "qdrant").QdrantClient(":memory:")


def by_path(hits):
    return [[(hit.path, hit.label, pytest.approx(hit.score, abs=1e-5)) for hit in row] for row in hits]


@pytest.mark.parametrize("kind", qdrant.KINDS)
def test_the_same_changes_give_the_same_hits_as_in_a_folder(kind, client, tmp_path, monkeypatch):
    monkeypatch.setattr(qdrant, "_BATCH", 7)  # several requests for each
    about = About(16, kind, "runs/a", "f00")
    ours = FolderStore.create(tmp_path / "index", About(16), entries(30))
    theirs = QdrantStore.create(client, "photos", about, entries(30))
    more = Entries(unit(4, seed=1), ["p3", "new", "new", "p4"], ["other", None, "x", None])
    assert ours.add(more).new == theirs.add(more).new == 1
    for store in ours, theirs:
        assert store.remove(store.find(["p0", "p29"])) == 2
        assert store.find(["p0", "new"]) == [None, store.find(["new"])[0]]
    again = QdrantStore(client, "photos")
    assert again.about == about and len(again) == len(ours) == 29
    queries = unit(10, seed=2)
    for exact in True, False:
        assert by_path(again.search(queries, 6, exact=exact, search_effort=50)) == by_path(ours.search(queries, 6))
    assert all(hit.id == id_of(hit.path) for row in again.search(queries, 29) for hit in row)


def test_the_same_path_is_the_same_point_whoever_writes_it(client):
    first = QdrantStore.create(client, "photos", About(16), entries(3))
    second = QdrantStore(client, "photos")
    assert (first.add(entries(1, start=7)).new, second.add(entries(1, start=7)).new) == (1, 0)
    assert len(first) == 4


def test_items_without_a_path(client):
    store = QdrantStore.create(client, "photos", About(16), Entries(unit(3), [None] * 3, ["a", "b", "c"]))
    [[hit]] = store.search(unit(3)[1:2], 1)
    assert (hit.path, hit.label) == (None, "b")
    assert store.add(Entries(unit(3), [None] * 3, [None] * 3)).new == 3
    assert store.remove([hit.id]) == 1 and len(store) == 5


def test_a_sample_is_of_its_own_items(client):
    store = QdrantStore.create(client, "photos", About(16), entries(20))
    ids, vectors = store.sample(12, seed=3)
    rows = [number for number in range(20) for own in [id_of(f"p{number}")] if own in ids.tolist()]
    assert len(rows) == len(set(ids.tolist())) == 12
    where = [ids.tolist().index(id_of(f"p{row}")) for row in rows]
    torch.testing.assert_close(vectors[where], unit(20)[rows])
    assert store.sample(12, seed=4)[0].tolist() != ids.tolist()
    assert sorted(store.sample(99, seed=3)[0].tolist()) == sorted(id_of(f"p{row}") for row in range(20))


def test_nothing_is_removed_if_one_is_not_there(client):
    store = QdrantStore.create(client, "photos", About(16), entries(3))
    with pytest.raises(ValueError, match="no item with the id 5; nothing was removed"):
        store.remove([5, id_of("p0")])
    assert len(store) == 3


def test_another_collection_is_refused(client):
    models = load("qdrant_client.models", "qdrant")
    vectors = models.VectorParams(size=4, distance=models.Distance.COSINE)
    client.create_collection("theirs", vectors_config=vectors)
    with pytest.raises(
        ValueError, match="'theirs' was not made by polyanchor, or the server is older than Qdrant 1.16"
    ):
        QdrantStore(client, "theirs")
    with pytest.raises(FileNotFoundError, match="the server has no collection 'nowhere'"):
        QdrantStore(client, "nowhere")
    with pytest.raises(FileExistsError, match="has a collection 'theirs' already"):
        QdrantStore.create(client, "theirs", About(4), Entries.none(4))
    with pytest.raises(ValueError, match="'exact', 'hnsw', got 'ivf'"):
        QdrantStore.create(client, "ours", About(4, "ivf"), Entries.none(4))
    with pytest.raises(ValueError, match="whose name has no '/'; got 'runs/ours'"):
        QdrantStore.create(client, "runs/ours", About(4), Entries.none(4))


def test_addresses():
    with pytest.raises(ValueError, match="--store must be qdrant:http://HOST:PORT"):
        connect("some/folder")
    silent = connect("http://127.0.0.1:9")  # nothing listens on the discard port
    with pytest.raises(ConnectionError, match="the Qdrant server does not answer"):
        QdrantStore(silent, "photos")

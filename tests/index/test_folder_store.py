"""The index on disk: whole at any moment, old or new."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import chain, repeat
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from polyanchor.index import folder_store as folder
from polyanchor.index.folder_store import FolderStore
from polyanchor.index.types import About, Entries
from tests.index.vectors import clustered, entries, found, unit

KINDS = pytest.mark.parametrize("kind", folder.KINDS)


def contents(store):
    rows = store._state.rows
    return rows.table.to_pylist(), rows.unit.tolist(), rows.next_id


@KINDS
def test_what_is_written_is_what_is_opened(kind, tmp_path):
    made = FolderStore.create(tmp_path / "index", About(16, kind, "runs/a", "f00"), entries(60))
    made.add(Entries(unit(2, seed=1), ["p3", "new"], ["other", None]))
    made.remove([0, 7])
    again = FolderStore(tmp_path / "index")
    assert contents(again) == contents(made)
    assert again.about == About(16, kind, "runs/a", "f00") and len(again) == 59
    queries = unit(5, seed=2)
    assert found(again.search(queries, 4)) == found(made.search(queries, 4))


@KINDS
def test_the_k_most_similar(kind, tmp_path):
    rows = unit(300)
    store = FolderStore.create(tmp_path / "index", About(16, kind), entries(300))
    queries = unit(20, seed=1)
    want = (queries @ rows.T).argsort(dim=1, descending=True)[:, :5].tolist()
    assert [[hit.id for hit in hits] for hits in store.search(queries, 5, exact=True)] == want
    assert [[hit.id for hit in hits] for hits in store.search(queries, 5, search_effort=300)] == want


def test_equal_scores_stand_in_order_of_ids_also_after_changes(tmp_path):
    same = unit(1).expand(6, -1)
    store = FolderStore.create(tmp_path / "index", About(16), Entries(same, list("abcdef"), [None] * 6))
    store.remove([1])
    store.add(Entries(same[:2], ["b", "d"], [None] * 2))
    [hits] = store.search(unit(1), 6)
    assert [(hit.id, hit.path) for hit in hits] == [(0, "a"), (2, "c"), (3, "d"), (4, "e"), (5, "f"), (6, "b")]


def changes():
    return {
        "add": lambda store: store.add(Entries(unit(2, seed=1), ["p3", "new"], [None, "x"])),
        "append": lambda store: store.add(entries(3, start=40, seed=1)),
        "remove": lambda store: store.remove([1, 4]),
    }


class Killed(BaseException):
    """Nothing in the code under test may catch it."""


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("change", changes())
def test_killed_at_any_step_the_old_or_the_new_index_is_left(kind, change, tmp_path, monkeypatch):
    FolderStore.create(tmp_path / "old", About(16, kind), entries(40))
    old = contents(FolderStore(tmp_path / "old"))
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    changes()[change](new_store := FolderStore(tmp_path / "new"))
    new, left = contents(new_store), []
    for step in range(100):
        place = tmp_path / f"{step}"
        shutil.copytree(tmp_path / "old", place)
        with monkeypatch.context() as patch:
            die_at(step, patch)
            try:
                changes()[change](FolderStore(place))
                break
            except Killed:
                pass
        left.append(contents(FolderStore(place)))
        assert left[-1] in (old, new)
        store = FolderStore(place)
        if left[-1] == old:
            changes()[change](store)  # and it goes on from there
        assert contents(FolderStore(place)) == new
        if kind != "exact":
            assert found(store.search(unit(3, seed=5), 3, search_effort=40)) == found(
                store.search(unit(3, seed=5), 3, exact=True)
            )
    assert {str(part) for part in left} == {str(old), str(new)}  # both were seen
    assert len(left) >= 6


def die_at(step, patch):
    """Stop at a file operation; what was about to be put in place is then half written."""
    calls = iter(range(1000))

    def dying(real):
        def call(first, *rest, **options):
            if next(calls) == step:
                if real is replace:
                    os.truncate(first, first.stat().st_size // 2)
                raise Killed
            return real(first, *rest, **options)

        return call

    replace = Path.replace
    for owner, name in ((Path, "replace"), (Path, "unlink"), (os, "fsync")):
        patch.setattr(owner, name, dying(getattr(owner, name)))


def test_a_creation_that_was_killed_leaves_room_for_another(tmp_path, monkeypatch):
    for step in range(5):
        with monkeypatch.context() as patch:
            die_at(step, patch)
            with pytest.raises(Killed):
                FolderStore.create(tmp_path / "index", About(16), entries(3))
        with pytest.raises(FileNotFoundError, match="is no index: it has no index.json"):
            FolderStore(tmp_path / "index")
    assert len(FolderStore.create(tmp_path / "index", About(16), entries(3))) == 3


@pytest.mark.slow
def test_kill_9_lets_go_of_the_lock(tmp_path):
    FolderStore.create(tmp_path / "index", About(16), entries(3))
    code = f"""
import os, time
from itertools import chain, repeat
from pathlib import Path
from polyanchor.index.folder_store import FolderStore
store = FolderStore(Path({str(tmp_path / "index")!r}))
os.fsync = lambda file: (print("writing", flush=True), time.sleep(600))
store.remove([0])
"""
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "writing\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    store = FolderStore(tmp_path / "index")
    assert len(store) == 3
    store.remove([1])
    assert len(FolderStore(tmp_path / "index")) == 2


def test_two_writers_wait_for_each_other_and_nothing_is_lost(tmp_path):
    first = FolderStore.create(tmp_path / "index", About(16), entries(3))
    second = FolderStore(tmp_path / "index")
    with FileLock(tmp_path / "index" / "lock"):
        writer = threading.Thread(target=first.add, args=(entries(2, start=10),))
        writer.start()
        time.sleep(0.2)
        assert writer.is_alive() and len(FolderStore(tmp_path / "index")) == 3
    writer.join()
    assert second.add(entries(2, start=20)).ids.tolist() == [5, 6]
    assert len(FolderStore(tmp_path / "index")) == 7


def test_who_has_it_open_sees_what_was_there(tmp_path):
    reader = FolderStore.create(tmp_path / "index", About(16), entries(40))
    before = found(reader.search(unit(3, seed=1), 3))
    FolderStore(tmp_path / "index").remove(list(range(39)))
    assert found(reader.search(unit(3, seed=1), 3)) == before
    assert len(FolderStore(tmp_path / "index")) == 1


def test_a_writer_that_replaces_the_files_meanwhile_is_followed(tmp_path, monkeypatch):
    store = FolderStore.create(tmp_path / "index", About(16), entries(3))
    real, turns = folder._load, chain([True], repeat(False))

    def slow(path, said):
        if next(turns):
            store.remove([0])  # deletes the files that were just named
        return real(path, said)

    monkeypatch.setattr(folder, "_load", slow)
    assert len(FolderStore(tmp_path / "index")) == 2


def test_the_graph_is_extended_by_new_rows_and_built_again_for_other_changes(tmp_path, monkeypatch):
    store = FolderStore.create(tmp_path / "index", About(16, "hnsw"), entries(50))
    built = []
    real = folder.approximate.build
    monkeypatch.setattr(folder.approximate, "build", lambda rows, kind: built.append(len(rows)) or real(rows, kind))
    store.add(entries(5, start=100, seed=1))
    assert built == []
    store.add(Entries(unit(1, seed=2), ["p0"], [None]))
    store.remove([3])
    assert built == [55, 54]
    queries = unit(10, seed=3)
    assert found(store.search(queries, 5, search_effort=60)) == found(store.search(queries, 5, exact=True))


@KINDS
def test_an_index_may_be_empty_and_filled_again(kind, tmp_path):
    store = FolderStore.create(tmp_path / "index", About(16, kind), Entries.none(16))
    assert (len(store), len(FolderStore(tmp_path / "index"))) == (0, 0)
    store.add(entries(2))
    store.remove([0, 1])
    assert len(FolderStore(tmp_path / "index")) == 0
    assert store.add(entries(1)).ids.tolist() == [2]


def test_of_old_files_nothing_stays(tmp_path):
    store = FolderStore.create(tmp_path / "index", About(16, "hnsw"), entries(3))
    store.remove([0])
    names = {file.name for file in (tmp_path / "index").iterdir()} - {"lock"}
    assert names == {"index.json", "vectors.2.safetensors", "items.2.parquet", "graph.2.faiss"}


def test_vectors_are_mapped_not_read(tmp_path):
    FolderStore.create(tmp_path / "index", About(16), entries(3))
    store = FolderStore(tmp_path / "index")
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("no /proc")
    assert str(tmp_path / "index" / "vectors.1.safetensors") in maps.read_text()
    assert len(store) == 3


def test_the_place_must_be_free(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(FileExistsError, match="photos holds a.jpg, so no index can begin there"):
        FolderStore.create(tmp_path / "photos", About(16), entries(1))
    with pytest.raises(FileExistsError, match="a.jpg is a file"):
        FolderStore.create(tmp_path / "photos" / "a.jpg", About(16), entries(1))
    FolderStore.create(tmp_path / "index", About(16), entries(1))
    with pytest.raises(FileExistsError, match="is an index already"):
        FolderStore.create(tmp_path / "index", About(16), entries(2))
    with pytest.raises(ValueError, match="kind must be one of 'exact', 'hnsw', 'ivf', got 'hsnw'; did you mean 'hnsw'"):
        FolderStore.create(tmp_path / "other", About(16, "hsnw"), entries(1))
    assert len(FolderStore(tmp_path / "index")) == 1 and not (tmp_path / "other").exists()


def test_nothing_is_removed_if_one_is_not_there(tmp_path):
    store = FolderStore.create(tmp_path / "index", About(16), entries(3))
    with pytest.raises(ValueError, match="no item with the id 9; nothing was removed"):
        store.remove([0, 9])
    assert len(FolderStore(tmp_path / "index")) == 3


def test_an_index_built_anew_for_another_model_is_not_written_to(tmp_path):
    store = FolderStore.create(tmp_path / "index", About(16, fingerprint="a"), entries(3))
    shutil.rmtree(tmp_path / "index")
    FolderStore.create(tmp_path / "index", About(16, fingerprint="b"), entries(3))
    with pytest.raises(ValueError, match="was built anew since it was opened, for another model"):
        store.add(entries(1))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda place: (place / "index.json").write_text("{"), "index.json: "),
        (lambda place: (place / "index.json").write_text("[]"), "expected format 'polyanchor index 1'"),
        (lambda place: rewritten(place, about={"dim": 16, "color": 1}), "index.json is damaged"),
        (lambda place: rewritten(place, items=4), "do not fit each other"),
        (lambda place: rewritten(place, next_id=1), "do not fit each other"),
        (lambda place: (place / "vectors.1.safetensors").unlink(), "vectors.1.safetensors is missing"),
        (lambda place: os.truncate(place / "vectors.1.safetensors", 500), "vectors.1.safetensors is damaged"),
        (lambda place: (place / "items.1.parquet").write_bytes(b"x" * 99), "items.1.parquet is damaged"),
    ],
)
def test_a_damaged_index_says_what_is_wrong(damage, words, tmp_path):
    FolderStore.create(tmp_path / "index", About(16), entries(3))
    damage(tmp_path / "index")
    with pytest.raises(ValueError, match=words):
        FolderStore(tmp_path / "index")


def rewritten(place, **changes):
    said = json.loads((place / "index.json").read_text()) | changes
    (place / "index.json").write_text(json.dumps(said))


def test_the_number_of_items_does_not_change_the_scores_of_equal_rows(tmp_path):
    rows = unit(1).expand(100, -1).contiguous()
    store = FolderStore.create(tmp_path / "index", About(16), Entries(rows, [None] * 100, [None] * 100))
    [hits] = store.search(unit(1, seed=1), 100)
    assert len({hit.score for hit in hits}) == 1
    assert torch.tensor([hit.id for hit in hits]).equal(torch.arange(100))


@pytest.mark.slow
@pytest.mark.parametrize("copies", [1000, 2000])
@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_copies_of_one_vector_hide_nothing(kind, copies, tmp_path):
    rows = clustered(3000)
    rows = torch.cat([rows, rows[:1].expand(copies, -1)])[torch.randperm(3000 + copies)]
    first, later = (Entries(part, [None] * len(part), [None] * len(part)) for part in (rows[:2500], rows[2500:]))
    FolderStore.create(tmp_path / "x", About(32, kind), first)
    store = FolderStore(tmp_path / "x")
    store.add(later)
    for opened in (store, FolderStore(tmp_path / "x")):
        hits = opened.search(rows[:300], 10)
        want = (rows[:300] @ rows.T).topk(10).values
        got = torch.tensor([[hit.score for hit in row] for row in hits])
        assert ((got >= want[:, -1:] - 1e-5).float().mean()) > 0.95
        mine = [row for row, found in enumerate(hits) if row in {hit.id for hit in found}]
        single = [row for row in range(300) if int((rows == rows[row]).all(dim=1).sum()) == 1]
        assert set(single) <= set(mine)
        kept, times = rows.unique(dim=0, return_counts=True)
        placeholder = (rows == kept[times.argmax()]).all(dim=1).nonzero()[:, 0]
        assert [hit.id for hit in opened.search(rows[placeholder[-1:]], 50)[0]] == placeholder[:50].tolist()


@KINDS
@pytest.mark.parametrize("which", ["vectors", "items", "graph"])
def test_zeroed_bytes_are_found(kind, which, tmp_path):
    FolderStore.create(tmp_path / "x", About(16, kind), entries(60))
    for file in (tmp_path / "x").glob(f"{which}.*"):
        content = file.read_bytes()
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes(32) + content[middle + 32 :])
        with pytest.raises(ValueError, match=rf"^{file} is damaged: it is not the file that was written"):
            FolderStore(tmp_path / "x").search(unit(1), 3)


def test_an_index_without_checksums_is_read(tmp_path):
    FolderStore.create(tmp_path / "x", About(16), entries(60))
    said = json.loads((tmp_path / "x" / "index.json").read_text())
    del said["checksums"]
    (tmp_path / "x" / "index.json").write_text(json.dumps(said))
    assert len(FolderStore(tmp_path / "x")) == 60

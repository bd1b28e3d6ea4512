"""faiss against a plain product, and its files."""

import pickle
import subprocess
import sys

import pytest
import torch

from polyanchor._optional import load
from polyanchor.index import faiss as approximate
from tests.index.vectors import clustered


def true_rows(queries, vectors, k):
    return (queries @ vectors.T).argsort(dim=1, descending=True, stable=True)[:, :k]


@pytest.mark.parametrize("kind", approximate.KINDS)
def test_it_finds_nearly_all_and_says_their_cosines(kind):
    vectors, queries = clustered(3000), clustered(50, seed=1)
    found = approximate.search(approximate.build(vectors, kind), queries, 10)
    want = true_rows(queries, vectors, 10)
    recall = sum(len(set(a) & set(b)) for a, b in zip(found.ids.tolist(), want.tolist(), strict=True)) / want.numel()
    assert recall > 0.9
    cosines = (queries @ vectors.T).gather(1, found.ids)
    torch.testing.assert_close(found.scores, cosines)
    assert (found.scores.diff(dim=1) <= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", approximate.KINDS)
def test_it_searches_too_where_another_library_has_changed_the_search_of_faiss(kind):
    script = (
        "import faiss, faiss.contrib.torch_utils, torch\n"  # pytorch-metric-learning imports it, for the whole process
        "from polyanchor.index import faiss as approximate\n"
        f"index = approximate.build(torch.eye(8), {kind!r})\n"
        "assert approximate.search(index, torch.eye(8)[[5]], 1, search_effort=8).ids.tolist() == [[5]]"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(("kind", "all_of_it"), [("hnsw", 500), ("ivf", 12)])
def test_with_all_the_breadth_there_is_nothing_is_missed(kind, all_of_it):
    vectors, queries = clustered(500), clustered(20, seed=1)
    found = approximate.search(approximate.build(vectors, kind), queries, 5, search_effort=all_of_it)
    assert found.ids.equal(true_rows(queries, vectors, 5))


def test_breadth_is_heeded():
    vectors, queries = clustered(3000), clustered(50, seed=1)
    index = approximate.build(vectors, "ivf")
    want = true_rows(queries, vectors, 10).tolist()

    def recall(search_effort):
        rows = approximate.search(index, queries, 10, search_effort=search_effort).ids.tolist()
        return sum(len(set(a) & set(b)) for a, b in zip(rows, want, strict=True))

    assert recall(1) < recall(index.nlist) == 500


@pytest.mark.parametrize("kind", approximate.KINDS)
def test_equal_scores_stand_in_order_of_their_rows(kind):
    vectors = torch.eye(4)[[0, 1, 0, 0, 2]]
    found = approximate.search(approximate.build(vectors, kind), torch.eye(4)[:1], 5)
    assert found.ids.tolist() == [[0, 2, 3, 1, 4]]


def test_lists_that_hold_too_little_leave_places_empty():
    found = approximate.search(approximate.build(clustered(400), "ivf"), clustered(1, seed=1), 400, search_effort=1)
    empty = found.ids < 0
    assert 0 < empty.sum() < 400
    assert found.scores[empty].isneginf().all() and found.scores[~empty].isfinite().all()


@pytest.mark.parametrize("kind", approximate.KINDS)
def test_extended_it_finds_the_new_rows_too(kind):
    vectors = clustered(600)
    index = approximate.build(vectors[:500], kind)
    assert approximate.extended(index, vectors[500:])
    assert approximate.search(index, vectors[590:], 1).ids[:, 0].tolist() == list(range(590, 600))


def test_lists_made_for_far_fewer_items_are_not_extended():
    index = approximate.build(clustered(500), "ivf")
    assert not approximate.extended(index, clustered(1000, seed=1))
    assert index.ntotal == 500


def test_only_the_very_file_that_was_written_is_given_to_faiss(tmp_path, monkeypatch):
    file = tmp_path / "graph.1.faiss"
    checksum = approximate.write(approximate.build(clustered(100), "hnsw"), file)
    assert approximate.read(file, checksum, size=100, dim=32).ntotal == 100
    with pytest.raises(ValueError, match="holds 100 x 32 vectors, expected 99 x 32"):
        approximate.read(file, checksum, size=99, dim=32)

    def never(path):
        raise AssertionError("read")

    monkeypatch.setattr(load("faiss", "search"), "read_index", never)
    whole = file.read_bytes()
    for content in (whole[:-1] + b"x", whole[: len(whole) // 2], pickle.dumps(print)):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="graph.1.faiss is damaged"):
            approximate.read(file, checksum, size=100, dim=32)


def test_equal_rows_are_one_node():
    rows = clustered(200)[torch.randint(60, (500,), generator=torch.Generator().manual_seed(0))]
    nodes = approximate.nodes_of(rows)
    seen = {}
    assert nodes.tolist() == [seen.setdefault(tuple(row), len(seen)) for row in rows.tolist()]
    assert torch.equal(rows[approximate.first_rows(nodes)][nodes], rows)


@pytest.mark.parametrize("k", [1, 4, 30, 200])
def test_nodes_are_expanded_to_the_rows_of_an_exact_search(k):
    rows = torch.eye(16).roll(1, 0)[torch.randint(16, (200,), generator=torch.Generator().manual_seed(0))]
    queries = torch.eye(16)[:3] + torch.eye(16)[3:6]  # two nodes are equally near, all others too
    nodes = approximate.nodes_of(rows)
    index = approximate.build(rows[approximate.first_rows(nodes)], "hnsw")
    found = approximate.expanded(approximate.search(index, queries, int(nodes.max()) + 1, search_effort=200), nodes, k)
    assert found.ids.equal(true_rows(queries, rows, k))
    assert found.scores.equal((queries @ rows.T).gather(1, found.ids))

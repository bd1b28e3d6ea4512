import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyanchor.search import exact
from polyanchor.search.exact import search, search_blocks, search_others, search_others_blocks
from tests.exact_vectors import VECTORS, cosine
from tests.search.live_memory import LiveMemory


def ranked(query, gallery, but=None):
    return sorted((n for n in range(len(gallery)) if n != but), key=lambda n: (-cosine(query, gallery[n]), n))


@given(st.lists(VECTORS, min_size=1, max_size=20), st.lists(VECTORS, min_size=1, max_size=30), st.data())
@settings(deadline=None)
def test_matches_a_full_ranking(queries, gallery, data):
    k = data.draw(st.integers(1, len(gallery)))
    found = search(torch.tensor(queries).float(), torch.tensor(gallery).float(), k, block_bytes=1)
    order = [ranked(query, gallery)[:k] for query in queries]
    assert found.ids.tolist() == order
    assert found.scores.tolist() == [
        [float(cosine(q, gallery[n])) for n in row] for q, row in zip(queries, order, strict=True)
    ]


@given(st.lists(VECTORS, min_size=2, max_size=40), st.data())
@settings(deadline=None)
def test_others_match_a_full_ranking_without_the_row(vectors, data):
    k = data.draw(st.integers(1, len(vectors) - 1))
    found = search_others(torch.tensor(vectors).float(), k, block_bytes=1)
    assert found.ids.tolist() == [ranked(v, vectors, but=i)[:k] for i, v in enumerate(vectors)]


def test_a_copy_of_the_query_is_found_and_the_query_is_not():
    vectors = torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 1.0], [1.0, 2.0]])
    found = search_others(vectors, 3)
    assert found.ids.tolist() == [[1, 3, 2], [0, 3, 2], [0, 1, 3], [0, 1, 2]]
    assert (found.ids != torch.arange(4)[:, None]).all()


@pytest.mark.parametrize("block_bytes", [1, 10_000, 33_333, 10**9])
def test_block_size_changes_nothing(block_bytes):
    random = torch.Generator().manual_seed(0)
    vectors = torch.randn(333, 24, generator=random)
    vectors[100:200] = vectors[:100]
    whole, part = search_others(vectors, 50), search_others(vectors, 50, block_bytes=block_bytes)
    assert (part.ids == whole.ids).all()
    assert (part.scores == whole.scores).all()
    queries = torch.randn(77, 24, generator=random)
    whole, part = search(queries, vectors, 333), search(queries, vectors, 333, block_bytes=block_bytes)
    assert (part.ids == whole.ids).all()


def test_blocks_cover_every_query_once():
    vectors = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    at = 0
    for start, found in search_others_blocks(vectors, 99, block_bytes=50_000):
        assert start == at
        at += len(found.ids)
    assert at == 100
    pieces = [found.ids.clone() for _, found in search_blocks(vectors, vectors, 3, block_bytes=1)]
    assert [len(piece) for piece in pieces] == [16] * 6 + [4]


@pytest.mark.parametrize("collapsed", [False, True])
@pytest.mark.parametrize("depth", [1, 19_999])
def test_memory_stays_within_the_budget(depth, collapsed):
    """Two blocks' neighbours at a time, as in a loop; collapsed: every row holds nothing but ties."""
    vectors = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(0))
    if collapsed:
        vectors[:] = 1.0
    copy = vectors.nbytes
    budget = 40 * 2**20
    with LiveMemory() as memory:
        blocks = search_others_blocks(vectors, depth, block_bytes=budget)
        del vectors
        for _ in range(3):
            _, found = next(blocks)
            assert len(found.ids) >= 16
    assert memory.peak <= budget + 2 * copy  # 20,000 x 20,000 scores would be 1.6e9


def test_the_matching_rank_is_imported_from_one_place():
    assert not hasattr(exact, "first_match_rank")


def test_inputs_that_require_grad():
    vectors = torch.eye(3).requires_grad_()
    assert not search(vectors, vectors, 2).scores.requires_grad
    assert not search_others(vectors, 2).scores.requires_grad


def test_refuses_at_once():
    vectors = torch.eye(4)
    with pytest.raises(ValueError, match=r"k must be at most 3, .* got 4; ask for 3 or fewer"):
        search_others_blocks(vectors, 4)
    with pytest.raises(ValueError, match=r"k must be at most 4, .* got 5"):
        search_blocks(vectors, vectors, 5)
    for k in (0, -1):
        with pytest.raises(ValueError, match="k must be at least 1"):
            search(vectors, vectors, k)
    for k in (True, 1.0):
        with pytest.raises(TypeError, match="k must be an integer"):
            search(vectors, vectors, k)
    with pytest.raises(ValueError, match="block_bytes"):
        search_blocks(vectors, vectors, 1, block_bytes=0)
    with pytest.raises(ValueError, match="finite"):
        search_others(vectors * float("nan"), 1)

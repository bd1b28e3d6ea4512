import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyanchor.search import symmetric
from polyanchor.search.exact import search_others, search_others_blocks, walk
from polyanchor.search.first_match import first_match_rank
from polyanchor.search.scores import leave_one_out
from polyanchor.search.symmetric import Targets
from tests.exact_vectors import VECTORS
from tests.search.live_memory import LiveMemory
from tests.search.small_tiles import small_tiles
from tests.search.test_exact import ranked


@pytest.mark.slow
@given(st.lists(VECTORS, min_size=2, max_size=40), st.data())
@settings(deadline=None, max_examples=200)
def test_others_match_a_full_ranking(vectors, data):
    k = data.draw(st.integers(1, len(vectors) - 1))
    with small_tiles(sample=data.draw(st.integers(1, 9))) as begun:
        found = search_others(torch.tensor(vectors).float(), k)
    assert len(begun) == 1
    assert found.ids.tolist() == [ranked(v, vectors, but=i)[:k] for i, v in enumerate(vectors)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("size", [40, 333, 1000])
def test_the_plain_search_gives_the_same_bits(size, dtype):
    vectors = torch.randn(size, 24, generator=torch.Generator().manual_seed(size)).to(dtype)
    vectors[size // 2 : size // 2 + 9] = vectors[:9]
    plain = search_others(vectors, 12)
    with small_tiles(tile=48, sample=64) as begun:
        found = search_others(vectors, 12)
        assert len(begun) == 1
    assert torch.equal(found.ids, plain.ids)
    assert torch.equal(found.scores, plain.scores)


def ranks_of(vectors, ids, depth, *, shift=0.0):
    """Of one item per row, in blocks; ``shift`` makes the scores given for them wrong."""
    task = leave_one_out(vectors)
    scores = torch.cat([block.clone() for _, _, block in walk(task, 1)])
    score = scores[torch.arange(len(ids)), ids]
    targets = Targets(ids, score + shift)
    with small_tiles(tile=48, sample=64):
        blocks = symmetric.sweep(task, symmetric.pays(task, depth), targets)
        assert blocks is not None
        got = torch.cat([rank(torch.arange(len(found.ids))) for _, found, rank in blocks])
    return got, scores


@pytest.mark.parametrize("shift", [0.0, 1e-7, -1e-7])
@pytest.mark.parametrize("ties", [False, True])
def test_ranks_of_targets_on_the_lists_and_below_them(ties, shift):
    """Labels that make the target the only classmate: the plain way ranks it as a first match."""
    random = torch.Generator().manual_seed(0)
    vectors = torch.randn(300, 8, generator=random)
    if ties:
        vectors = vectors.sign()
    ids = (torch.arange(300) + torch.randint(1, 300, (300,), generator=random)) % 300
    got, scores = ranks_of(vectors, ids, torch.full((300,), 10), shift=shift)
    for row in range(300):
        only = torch.zeros(300, dtype=torch.long)
        only[ids[row]] = 1
        assert got[row] == first_match_rank(scores, torch.tensor([row]), torch.tensor([1]), only)


@pytest.mark.parametrize("floor", [2.0, float("inf"), -2.0])
def test_floors_too_high_or_too_low(monkeypatch, floor):
    """Every row is searched the plain way, the lists being too short or too long to be built."""
    vectors = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    plain = search_others(vectors, 5)
    monkeypatch.setattr(symmetric, "score_thresholds", lambda task, *_: torch.full((task.size,), floor))
    with small_tiles(tile=48, sample=64):
        found = search_others(vectors, 5)
    assert torch.equal(found.ids, plain.ids)
    assert torch.equal(found.scores, plain.scores)


def test_each_row_to_its_own_depth():
    vectors = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    depth = torch.randint(1, 60, (200,), generator=torch.Generator().manual_seed(1))
    plain = search_others(vectors, 60)
    task = leave_one_out(vectors)
    with small_tiles(tile=48, sample=64):
        for start, found, _ in symmetric.sweep(task, symmetric.pays(task, depth)):
            assert found.ids.shape[1] == depth[start : start + len(found.ids)].max()
            for place, (ids, scores) in enumerate(zip(found.ids, found.scores, strict=True)):
                kept = int((ids >= 0).sum())
                assert kept >= depth[start + place]
                assert torch.equal(ids[:kept], plain.ids[start + place, :kept])
                assert scores[kept:].isneginf().all()


def test_when_it_pays():
    random = torch.Generator().manual_seed(0)
    task = leave_one_out(torch.randn(7000, 4, generator=random))
    ten = torch.full((7000,), 10)
    assert symmetric.pays(task, ten) is not None
    assert symmetric.pays(task, ten, held_bytes=2**20) is None
    assert symmetric.pays(task, ten * 200) is None
    assert symmetric.pays(leave_one_out(torch.randn(500, 4, generator=random)), ten[:500]) is None


def test_not_where_the_bits_depend_on_the_place(monkeypatch):
    task = leave_one_out(torch.randn(7000, 4, generator=torch.Generator().manual_seed(0)))
    monkeypatch.setattr(symmetric, "_same_both_ways", lambda _: False)
    assert symmetric.pays(task, torch.full((7000,), 10)) is None


def test_nothing_but_ties_is_left_to_the_plain_search():
    task = leave_one_out(torch.ones(7000, 4))
    assert symmetric.sweep(task, symmetric.pays(task, torch.full((7000,), 10))) is None
    assert search_others(torch.ones(7000, 4), 2).ids[:3].tolist() == [[1, 2], [0, 2], [0, 1]]


@pytest.mark.slow
def test_memory_stays_within_the_budget():
    """The neighbours of all rows would be 72 MB, the scores 576 MB."""
    vectors = torch.randn(12_000, 8, generator=torch.Generator().manual_seed(0))
    task, depth = leave_one_out(vectors), torch.full((12_000,), 500)
    low, high = 16 * 2**20, 256 * 2**20  # what the least budget is in which it is taken on
    while high - low > 2**20:
        middle = (low + high) // 2
        low, high = (low, middle) if symmetric.pays(task, depth, held_bytes=middle) else (middle, high)
    with LiveMemory() as memory:
        blocks = search_others_blocks(vectors, 500, block_bytes=high)
        del vectors
        for _ in blocks:
            pass
    assert memory.peak <= high + 4 * task.gallery.nbytes

import pytest
import torch

from polyanchor.search import first_match
from polyanchor.search.exact import search, search_others, walk
from polyanchor.search.first_match import first_match_rank, first_matches
from polyanchor.search.scores import leave_one_out, query_gallery
from tests.covering import covering
from tests.search.live_memory import LiveMemory


def by_hand(ids, labels, gallery_labels):
    """Rank of the first item of the query's label in full rankings."""
    ranks = []
    for row, label in zip(ids.tolist(), labels.tolist(), strict=True):
        same = [rank for rank, item in enumerate(row, start=1) if gallery_labels[item] == label]
        ranks.append(same[0] if same else 0)
    return ranks


def problem(size, classes, seed):
    """Cosines exact in float32 and many of them equal; labels with singletons."""
    random = torch.Generator().manual_seed(seed)
    vectors = torch.randint(0, 2, (size, 4), generator=random).float() * 2 - 1
    vectors[torch.randint(size, (size // 4,), generator=random)] = 0
    return vectors, torch.randint(-classes, classes, (size,), generator=random)


def ranks(task, labels, gallery_labels, block_bytes):
    """Of all queries, block by block."""
    blocks = walk(task, 1, block_bytes=block_bytes)
    found = []
    for start, _, scores in blocks:
        rows = torch.arange(len(scores))
        found.append(first_match_rank(scores, rows, labels[start + rows], gallery_labels))
    return torch.cat(found)


@pytest.mark.parametrize("seed", range(5))
def test_matches_full_rankings(subtests, seed):
    for block_bytes in (1, 30_000, 10**9):
        with subtests.test(block_bytes=block_bytes):
            vectors, labels = problem(70, 20, seed)
            others = search_others(vectors, 69).ids
            got = ranks(leave_one_out(vectors), labels, labels, block_bytes)
            assert got.tolist() == by_hand(others, labels, labels.tolist())
            queries, wanted = vectors[:30], labels[:30]
            got = ranks(query_gallery(queries, vectors[30:]), wanted, labels[30:], block_bytes)
            assert got.tolist() == by_hand(search(queries, vectors[30:], 40).ids, wanted, labels[30:].tolist())
            assert (got == 0).any()


def test_some_rows():
    vectors, labels = problem(50, 12, 9)
    rows = torch.tensor([49, 0, 7, 7])
    task = leave_one_out(vectors)
    _, _, scores = next(walk(task, 1))
    got = first_match_rank(scores, rows, labels[rows], labels)
    assert got.tolist() == ranks(task, labels, labels, 1)[rows].tolist()
    assert first_match_rank(scores, rows[:0], labels[:0], labels).tolist() == []


def test_labels_are_compared_as_integers():
    labels = torch.tensor([2**24, 2**24 + 1, 2**24])
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    assert ranks(leave_one_out(vectors), labels, labels, 1).tolist() == [2, 0, 2]


def test_takes_a_part_of_the_block_at_a_time():
    scores = torch.randn(64, 20_000, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20_000)
    with LiveMemory() as memory:
        first_match_rank(scores, torch.arange(64), labels[:64], labels)
    assert memory.peak <= scores.nbytes * (3 * 4 + 8) / 4 / 8 + 200_000  # what rows_per_block counts; the columns


@pytest.mark.parametrize(("classes", "at_once", "together"), covering([1, 3, 40], [48, 1008], [1, 10, 192]))
def test_first_matches_are_the_best_classmates(monkeypatch, classes, at_once, together):
    monkeypatch.setattr(first_match, "_TOGETHER", together)
    monkeypatch.setattr(first_match, "_AT_ONCE", at_once)
    vectors, labels = problem(110, classes, 3)
    task = leave_one_out(vectors)
    found = first_matches(task, labels)
    scores = (task.queries.double() @ task.queries.double().T).tolist()  # exact
    for query, label in enumerate(labels.tolist()):
        mates = [n for n in range(110) if n != query and labels[n] == label]
        best = min(mates, key=lambda n: (-scores[query][n], n)) if mates else -1
        assert found.ids[query] == best
        assert found.scores[query] == (scores[query][best] if mates else -torch.inf)


def test_first_matches_have_the_scores_of_the_search():
    vectors = torch.randn(1000, 24, generator=torch.Generator().manual_seed(0))
    task, labels = leave_one_out(vectors), torch.arange(1000) % 300
    found = first_matches(task, labels)
    scores = torch.cat([block.clone() for _, _, block in walk(task, 1)])
    assert torch.equal(found.scores, scores[torch.arange(1000), found.ids])

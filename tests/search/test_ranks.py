import pytest
import torch

from polyanchor.search.symmetric import Counts, Targets, rank_in
from tests.search.test_threshold_lists import tables


def by_sorting(scores, query, item):
    order = sorted(range(len(scores)), key=lambda n: (-scores[query, n].item(), n))
    return order.index(item) + 1


def test_rank_in_whole_scores():
    scores, _, _ = tables(64, 8)
    items = torch.randint(64, (64,), generator=torch.Generator().manual_seed(1))
    assert rank_in(scores, items).tolist() == [by_sorting(scores, q, int(n)) for q, n in enumerate(items)]


def counted(tiles, targets, floor):
    counts = Counts(targets, floor, 8)
    for row in range(len(tiles)):
        for column in range(row, len(tiles)):
            counts.add(tiles[row, column].contiguous(), row, column)
    return counts


@pytest.mark.parametrize("size", [5, 16, 41])
def test_counts_what_stands_before_the_target(size):
    """Nine distinct scores: most targets have equals left and right of them, and in their own tile."""
    scores, tiles, floor = tables(size, 8)
    query = torch.arange(size)
    ids = torch.randint(size, (size,), generator=torch.Generator().manual_seed(2))
    ids[ids == query] = -1
    targets = Targets(ids, scores[query, ids])
    counts = counted(tiles, targets, floor)
    deep = [n >= 0 and scores[q, n] <= floor[q] for q, n in enumerate(ids.tolist())]
    assert counts.deep.view(-1)[:size].tolist() == deep
    assert not counts.differs.any()
    for q in range(size):
        if deep[q]:
            assert counts.before.view(-1)[q] + 1 == by_sorting(scores, q, int(ids[q]))


def test_a_target_with_another_score_in_the_tile_is_noted():
    scores, tiles, floor = tables(41, 8)
    ids = (torch.arange(41) + 1) % 41
    exact = scores[torch.arange(41), ids]
    wrong = exact.clone()
    wrong[::3] += 0.25
    floor[:] = 20
    assert not counted(tiles, Targets(ids, exact), floor).differs.any()
    assert counted(tiles, Targets(ids, wrong), floor).differs.view(-1)[:41].tolist() == (exact != wrong).tolist()

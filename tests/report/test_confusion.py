"""Shares, counted one by one."""

import pytest
import torch

from polyanchor import evaluate_retrieval
from polyanchor.report.scores import confusion, shown_classes, strongest
from polyanchor.search.exact import search_others


def test_shares_by_brute_force():
    labels = torch.randint(0, 7, (200,)) * 3
    nearest, known = torch.randint(0, 7, (200,)) * 3, torch.rand(200) > 0.2
    found = confusion(labels, nearest, known)
    for a in range(0, 21, 3):
        mine = [row for row in range(200) if labels[row] == a and known[row]]
        assert found.queries[a] == len(mine)
        for b in range(0, 21, 3):
            assert found.share(a, b) == pytest.approx(sum(int(nearest[row]) == b for row in mine) / len(mine))
        wrong = found.of(a)
        assert a not in [b for b, _ in wrong]
        assert wrong == sorted(wrong, key=lambda pair: -pair[1]) or len({share for _, share in wrong}) < len(wrong)
    best = max(
        (found.share(a, b), found.counts[a][b])
        for a in found.queries
        for b in found.queries
        if b in found.counts[a] and a != b
    )
    a, b, count, share = strongest(found, 3)[0]
    assert (share, count) == best and a != b


def test_its_diagonal_is_recall_at_1():
    vectors, labels = torch.randn(90, 4), torch.arange(90) % 6
    nearest = labels[search_others(vectors, 1).ids[:, 0]]
    found = confusion(labels, nearest, torch.ones(90, dtype=torch.bool))
    mean = sum(found.share(a, a) * n for a, n in found.queries.items()) / 90
    assert mean == pytest.approx(evaluate_retrieval(vectors, labels, k=1).means["recall@1"])


def test_a_table_of_few_classes_has_the_chosen_and_the_strongest():
    labels = torch.arange(10).repeat_interleave(10)
    nearest = labels.clone()
    nearest[70:79], nearest[40:44] = 2, 8  # nine of class 7 find 2, four of class 4 find 8
    found = confusion(labels, nearest, torch.ones(100, dtype=torch.bool))
    assert shown_classes(found, [], 10) == list(range(10))
    assert shown_classes(found, [], 3) == [7, 2, 4]
    assert shown_classes(found, [5, 99], 3) == [5, 7, 2]

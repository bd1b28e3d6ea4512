"""Recall as counted by hand."""

import pytest
import torch

from polyanchor import Index
from polyanchor.index import recall
from polyanchor.index.types import Hit
from tests.index.vectors import unit


def by_hand(vectors, index, ids, k, search_effort):
    """Share of the k nearest others, found by a sort of all cosines, that are in the index's answers."""
    shares = []
    for row in ids:
        cosines = vectors @ vectors[row]
        cosines[row] = -2
        want = set(cosines.argsort(descending=True)[:k].tolist())
        [hits] = index.search(vectors[row][None], k + 1, search_effort=search_effort)
        shares.append(len(want & set([hit.id for hit in hits if hit.id != row][:k])) / k)
    return sum(shares) / len(shares)


def test_it_is_the_share_of_true_neighbours(tmp_path):
    vectors = unit(1500, 32)
    index = Index.create(tmp_path / "index", dim=32, kind="ivf")
    index.add(vectors)
    ids = index.sample(100)[0].tolist()
    poor = recall.measure_recall(index, k=8, queries=100, search_effort=1)
    assert poor.recall == pytest.approx(by_hand(vectors, index, ids, 8, search_effort=1))
    assert 0.1 < poor.recall < 0.95 and (poor.queries, poor.k) == (100, 8)
    assert recall.measure_recall(index, k=8, queries=100, search_effort=1000).recall == 1
    assert poor.exact > 0 and poor.speedup == poor.exact / poor.approximate


def test_an_item_as_near_as_the_last_counts():
    true = [Hit(1, 0.9, None, None), Hit(2, 0.5, None, None)]
    assert recall._share(true, [Hit(1, 0.9, None, None), Hit(3, 0.5, None, None)]) == 1
    assert recall._share(true, [Hit(1, 0.9, None, None), Hit(3, 0.49, None, None)]) == 0.5
    assert recall._share(true, []) == 0


def test_with_one_item_there_is_nothing_to_find(tmp_path):
    index = Index.create(tmp_path / "index", dim=2)
    index.add(torch.ones(1, 2))
    with pytest.raises(ValueError, match="holds 1 items; a check needs 2 or more"):
        recall.measure_recall(index)
    index.add(torch.ones(1, 2))
    assert recall.measure_recall(index, k=10).k == 1

import math
import weakref

import pytest
import torch

from polyanchor.functional import retrieval as measures
from polyanchor.metrics.retrieval import block_metrics, compute_relevance, join, report
from polyanchor.types import Neighbours


def nothing_deeper(rows):
    raise AssertionError(f"asked for rows {rows.tolist()}")


def found(ids):
    return Neighbours(torch.tensor(ids), torch.zeros(len(ids), len(ids[0])))


def test_a_copy_under_another_label_is_not_a_hit():
    """Items 0 and 1 are one picture under two labels: dropping rank 1 would score item 0 for itself."""
    judgement = compute_relevance(torch.tensor([5, 7, 5]), (1, 2))
    assert judgement.n_relevant.tolist() == [1, 0, 1]
    values = block_metrics(found([[1, 2], [0, 2], [0, 1]]), 0, judgement, nothing_deeper)
    assert values["recall@1"].tolist() == [0.0, pytest.approx(math.nan, nan_ok=True), 1.0]
    assert values["ndcg@2"][0].item() == pytest.approx(1 / math.log2(3))
    assert values["mrr"].tolist() == [0.5, pytest.approx(math.nan, nan_ok=True), 1.0]


def test_blocks_are_joined_in_order():
    judgement = compute_relevance(torch.tensor([0, 0, 1, 1]), (1,))
    ids = [[1], [2], [3], [0]]

    def deeper(rows):
        return rows + 2

    whole = block_metrics(found(ids), 0, judgement, deeper)
    assert whole["mrr"].tolist() == [1.0, 1 / 3, 1.0, 1 / 5]
    whole = block_metrics(found(ids), 0, judgement, torch.ones_like)
    parts = [
        (start, block_metrics(found(ids[start:stop]), start, judgement, torch.ones_like))
        for start, stop in ((3, 4), (0, 3))
    ]
    parts = join(parts, 4)
    for name, value in whole.items():
        assert parts[name].tolist() == value.tolist()


def test_no_block_is_kept_while_the_next_but_one_is_made():
    made = []

    def blocks():
        for start in range(5):
            assert all(old() is None for old in made[:-1])
            value = torch.ones(1)
            made.append(weakref.ref(value))
            yield start, {"mrr": value}

    assert join(blocks(), 5)["mrr"].tolist() == [1.0] * 5


def test_deeper_hits_and_means():
    judgement = compute_relevance(torch.tensor([0, 0, 1, 2, 2]), (1,))
    asked = []

    def deeper(rows):
        asked.append(rows.tolist())
        return torch.tensor([4, 2])

    values = join([(0, block_metrics(found([[1], [2], [0], [1], [3]]), 0, judgement, deeper))], 5)
    assert asked == [[1, 3]]
    made = report(values, judgement, gallery=4, notes=["partial"])
    assert made.per_query["mrr"].tolist() == [1.0, 0.25, pytest.approx(math.nan, nan_ok=True), 0.5, 1.0]
    assert made.means["mrr"] == (1 + 0.25 + 0.5 + 1) / 4
    assert (made.undefined, made.queries, made.gallery, made.notes) == (1, 5, 4, ("partial",))
    assert set(made.means) == {"recall@1", "precision@1", "ndcg@1", "mrr", "r_precision", "map@r"}


def test_depth_reaches_the_largest_class_and_cutoff():
    assert compute_relevance(torch.tensor([1, 1, 1, 2]), (1,)).depth == 2
    assert compute_relevance(torch.tensor([1, 1, 1, 2]), (3, 1)).depth == 3
    assert compute_relevance(torch.tensor([1, 1, 1, 2]), (1,)).depths.tolist() == [2, 2, 2, 1]


def test_hits_are_checked_once_per_block(monkeypatch):
    """Each check reads the hits, and so waits for an accelerator."""
    calls = []

    def counted(hits, n_relevant):
        calls.append(hits.shape)
        return fitting(hits, n_relevant)

    fitting = measures.fitting
    monkeypatch.setattr(measures, "fitting", counted)
    judgement = compute_relevance(torch.tensor([0, 0, 0]), (1, 2))
    block_metrics(found([[1, 2], [0, 2], [0, 1]]), 0, judgement, nothing_deeper)
    assert calls == [(3, 2)]


def test_neighbours_that_cannot_be_are_refused():
    judgement = compute_relevance(torch.tensor([0, 0, 1]), (2,))
    with pytest.raises(ValueError, match="got 1 for query 0, which has 2 hits"):
        block_metrics(found([[1, 0], [0, 2], [0, 1]]), 0, judgement, nothing_deeper)


def test_undefined_counts_the_ideal_and_undefined_of_each_measure():
    """Class 1 has one item, and is worth something to itself and to class 0: nDCG is defined where R is 0."""
    judgement = compute_relevance(torch.tensor([0, 0, 1]), (1, 2), gains=torch.tensor([[2, 1], [1, 2]]))
    values = block_metrics(found([[1, 2], [0, 2], [0, 1]]), 0, judgement, nothing_deeper)
    made = report(values, judgement, gallery=2)
    assert made.undefined == made.undefined_of("ndcg@1") == made.undefined_of("ndcg@2") == 0
    assert {made.undefined_of(name) for name in made.means if "ndcg" not in name} == {1}

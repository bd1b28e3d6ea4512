"""Which queries are shown, and whether what they found is marked right."""

import torch

from polyanchor.report.scores import typical, with_hits, worst


def test_the_worst_of_each_class_first():
    ndcg = torch.tensor([0.0, 0.0, 0.0, 0.3, 0.2, float("nan"), 0.9])
    mrr = torch.tensor([0.01, 0.02, 0.03, 0.5, 0.5, float("nan"), 1.0])
    labels = torch.tensor([1, 1, 1, 2, 2, 3, 4])
    assert worst(ndcg, mrr, labels, 2) == [0, 4]
    assert worst(ndcg, mrr, labels, 9) == [0, 4, 6, 1, 3, 2]
    assert worst(ndcg, mrr, labels, 0) == []


def test_typical_is_near_the_median():
    ndcg = torch.linspace(0, 1, 101)
    rows = typical(ndcg, torch.arange(101), 5)
    assert sorted(rows) == [48, 49, 50, 51, 52]
    tied = typical(torch.full((1000,), 0.4), torch.arange(1000), 50)
    assert max(tied) > 800 and min(tied) < 200  # not the first fifty
    assert typical(torch.full((3,), float("nan")), torch.arange(3), 2) == []


def test_hits_are_marked_by_the_classes(opened):
    labels = opened.queries.embeddings.labels
    for one in with_hits(opened, range(16)):
        assert [hit.right for hit in one.hits] == [bool(labels[hit.row] == labels[one.row]) for hit in one.hits]
        assert one.row not in [hit.row for hit in one.hits]
        ranks = [rank for rank, hit in enumerate(one.hits, start=1) if hit.right]
        assert one.first_right == ranks[0] if ranks else one.first_right > len(one.hits)

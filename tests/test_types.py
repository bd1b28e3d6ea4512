import pytest
import torch

import polyanchor as pa


def test_a_report_prints_as_its_numbers():
    report = pa.evaluate_retrieval(torch.eye(5)[:, :3] + 0.1, torch.tensor([0, 0, 1, 1, 2]), k=2, notes=("half of it",))
    lines = str(report).splitlines()
    assert f"map@r         {report.means['map@r']:.4f}" in lines
    assert lines[-2:] == ["5 queries, 1 of them with nothing to find, each searched among 4 items", "note: half of it"]


def test_a_report_names_both_counts_where_they_differ():
    vectors, labels = torch.eye(5)[:, :3] + 0.1, torch.tensor([0, 0, 1, 2, 3])
    gains = torch.eye(4)
    gains[1, 2] = gains[2, 1] = 0.5  # classes 1 and 2 are worth something to each other, class 3 to nobody
    report = pa.evaluate_retrieval(vectors, labels, k=2, gains=gains)
    assert report.undefined_of("ndcg@2") == report.undefined == 1
    assert report.undefined_of("recall@2") == report.undefined_of("mrr") == 3
    assert str(report).splitlines()[-2:] == [
        "5 queries, 1 of them with nothing to find, each searched among 4 items",
        "left out of all measures but nDCG, for want of an item of the same class: 3",
    ]
    with pytest.raises(ValueError, match="measure must be one of 'recall@2', .* got 'ndcg'"):
        report.undefined_of("ndcg")

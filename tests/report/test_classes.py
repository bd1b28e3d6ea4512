"""Means of classes by hand."""

import math

import pytest
import torch

from polyanchor.report.scores import class_scores, extremes, interval_of


def test_means_by_hand():
    nan = float("nan")
    per_query = {
        "ndcg@2": torch.tensor([0.5, nan, 1.0, 0.2, nan, 0.4]),
        "recall@1": torch.tensor([0.0, nan, 1.0, 0, nan, 1]),
    }
    scores = class_scores(per_query, torch.tensor([4, 4, 4, 9, 2, 9]), ["ndcg@2", "recall@1"])
    assert [(one.class_id, one.queries, one.undefined) for one in scores] == [(2, 0, 1), (4, 2, 1), (9, 2, 0)]
    assert math.isnan(scores[0].means["ndcg@2"])
    assert [one.means["ndcg@2"] for one in scores[1:]] == pytest.approx([0.75, 0.3])
    assert [one.means["recall@1"] for one in scores[1:]] == pytest.approx([0.5, 0.5])


def test_the_ends_do_not_meet():
    values = torch.tensor([0.1, 0.9, 0.5, 0.3, 0.7, float("nan")])
    scores = class_scores({"mrr": values}, torch.arange(6), ["mrr"])
    for most, worst, best in ((1, [0], [1]), (2, [0, 3], [1, 4]), (9, [0, 3], [1, 4])):
        found = extremes(scores, "mrr", most)
        assert [[one.class_id for one in side] for side in found] == [worst, best]
    assert [one.class_id for one in extremes(scores[:1], "mrr", 3)[0]] == [0]


def test_the_interval_is_of_the_class_alone():
    labels = torch.arange(2).repeat_interleave(50)
    found = interval_of(torch.cat([torch.ones(50), torch.rand(50)]), labels, 0)
    assert (found.mean, found.low, found.high, found.n) == (1.0, 1.0, 1.0, 50)

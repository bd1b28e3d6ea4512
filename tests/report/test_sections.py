"""What the template is given."""

import pytest
import torch

from polyanchor.report.content import class_tables, confusion_tables, measure_tables
from polyanchor.report.scores import ClassScore, confusion
from polyanchor.types import RetrievalReport


def test_every_row_of_the_confusions_sums_to_one():
    labels, nearest = torch.randint(0, 40, (800,)), torch.randint(0, 40, (800,))
    found = confusion(labels, nearest, torch.ones(800, dtype=torch.bool))
    names = {number: f"class {number}" for number in range(40)}
    tables = confusion_tables(found, [31], names)
    assert len(tables["rows"]) == 20 and not tables["all"] and tables["rows"][0]["name"] == "class 31"
    for row in tables["rows"]:
        assert sum(row["shares"]) + row["rest"] == pytest.approx(1)
        number = int(row["name"].split()[1])
        mine = labels == number
        assert row["shares"][row["own"]] == pytest.approx(float((nearest[mine] == number).float().mean()))
    assert tables["pairs"] == sum(a != b for a, b in set(zip(labels.tolist(), nearest.tolist(), strict=True)))
    shares = [pair["share"] for pair in tables["strongest"]]
    assert shares == sorted(shares, reverse=True) and len(shares) == 15
    few = confusion_tables(confusion(labels % 5, nearest % 5, torch.ones(800, dtype=torch.bool)), [], names)
    assert few["all"] and [row["name"] for row in few["rows"]] == [names[number] for number in range(5)]


def test_a_bar_stands_where_its_interval_is():
    values = torch.rand(60, dtype=torch.float64)
    report = RetrievalReport({"recall@1": values, "mrr": values}, {}, 0, 60, 59, labels=torch.arange(60) % 6)
    sub = RetrievalReport({"mrr": torch.full((60,), float("nan"))}, {}, 60, 60, 59, labels=torch.arange(60))
    whole, finer = measure_tables(RetrievalReport(report.per_query, {}, 0, 60, 59, labels=report.labels, sub=sub))
    for row in whole["rows"]:
        by_class, by_query, mean = row["bars"]
        one = row["measure"]
        for bar, interval in ((by_class, one.over_classes), (by_query, one.over_queries)):
            assert [bar["low"], bar["low"] + bar["width"]] == pytest.approx(
                [100 * interval.low, 100 * interval.high], abs=0.02
            )
        assert mean["low"] == pytest.approx(100 * float(values.mean()), abs=0.01)
    assert [row["first"] for row in whole["rows"]] == [False, True] and not whole["undefined"]
    assert finer["title"] and finer["undefined"] and finer["rows"][0]["bars"] == []


def test_classes_without_a_value_are_named_beside_the_plot(opened):
    scores = [ClassScore(number, 4, 0, {f"ndcg@{opened.k}": 0.5, "recall@1": 0.5}) for number in (4, 5)]
    lone = ClassScore(3, 0, 1, {f"ndcg@{opened.k}": float("nan"), "recall@1": float("nan")})
    made = class_tables(opened, [*scores, lone], [], {3: "delta", 4: "e", 5: "f"})
    assert made["count"] == 2 and made["empty"] == "is delta"
    assert class_tables(opened, scores, [], {4: "e", 5: "f"})["empty"] == ""

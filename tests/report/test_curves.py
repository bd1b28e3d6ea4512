"""Rows of epochs as figures."""

from polyanchor.report.content import curves


def test_each_line_has_a_value_an_epoch():
    rows = [
        {"loss": 3.0, "val/recall@1": 0.1, "val/recall@8": 0.2, "val/ndcg@1": 0.1, "val/ndcg@8": 0.3, "val/map@r": 0.1},
        {"loss": 2.0, "val/map@r": 0.2, "proxy_turn": 5.0, "proxy_length": 1.0},
        {"loss": 1.0, "proxy_turn": 1.0, "proxy_length": 2.0},
    ]
    found = {one["title"]: {line["name"]: line["values"] for line in one["lines"]} for one in curves({"epochs": rows})}
    assert found["Training loss"] == {"loss": [3.0, 2.0, 1.0]}
    assert found["Held-out training classes"] == {
        "recall@1": [0.1, None, None],
        "nDCG@8": [0.3, None, None],
        "MAP@R": [0.1, 0.2, None],
    }
    assert found["How far the proxies turned"] == {"median angle": [None, 5.0, 1.0]}
    assert found["Length of the proxies"] == {"median length": [None, 1.0, 2.0]}


def test_what_is_not_there_is_not_drawn():
    assert curves({}) == curves({"epochs": None}) == curves({"epochs": []}) == []
    assert curves({"epochs": [{"proxy_length": 1.0}, {"proxy_length": 1.0000001}]}) == []  # held fixed

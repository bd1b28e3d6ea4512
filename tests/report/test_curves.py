"""Rows of epochs as figures."""

from polyanchor.report.figures import class_figure, curve_figure, curves


def test_each_line_has_a_value_an_epoch():
    rows = [
        {"loss": 3.0, "val/recall@1": 0.1, "val/recall@8": 0.2, "val/ndcg@1": 0.1, "val/ndcg@8": 0.3, "val/map@r": 0.1},
        {"loss": 2.0, "val/map@r": 0.2, "proxy_turn": 5.0, "proxy_length": 1.0},
        {"loss": 1.0, "proxy_turn": 1.0, "proxy_length": 2.0},
    ]
    found = {curve["title"]: curve["lines"] for curve in curves({"epochs": rows})}
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


def test_a_curve_has_a_line_a_measure_and_marks_the_kept_epoch():
    curve = {"title": "t", "y": "measure", "lines": {"recall@1": [0.1, None], "MAP@R": [0.2, 0.3]}}
    figure = curve_figure(curve, 2)
    assert [(line["name"], list(line["x"]), list(line["y"])) for line in figure["data"]] == [
        ("recall@1", [1, 2], [0.1, None]),
        ("MAP@R", [1, 2], [0.2, 0.3]),
    ]
    assert figure["layout"]["shapes"][0]["x0"] == 2 and figure["layout"]["yaxis"]["title"]["text"] == "measure"
    assert "shapes" not in curve_figure(curve, None)["layout"]


def test_classes_are_drawn_in_the_order_of_their_values():
    classes = [{"name": "a", "ndcg": 0.9}, {"name": "trained"}, {"name": "c", "ndcg": 0.1}]
    (trace,) = class_figure(classes, 8)["data"]
    assert (list(trace["y"]), list(trace["text"]), list(trace["customdata"])) == ([0.1, 0.9], ["c", "a"], [2, 0])
    assert class_figure([{"name": "trained"}], 8) is None


def test_the_name_of_a_class_is_text_and_no_html():
    figure = class_figure([{"name": "<b>a</b> & c", "ndcg": 0.5}], 8)
    assert figure["data"][0]["text"] == ["&lt;b&gt;a&lt;/b&gt; &amp; c"]
    assert figure["layout"]["xaxis"]["ticktext"] == ["&lt;b&gt;a&lt;/b&gt; &amp; c"]

"""The figures hold what was measured, and are files that open."""

import pytest
import torch
from PIL import Image

from polyanchor import MultiProxyAnchorLoss
from polyanchor.analysis.gradient_report import _capacity, _draw_curves, _similarity, draw_gradients
from polyanchor.analysis.gradients import Curve, similarity_gradient
from polyanchor.losses.pml import pml_loss

LABELS = torch.tensor([0, 0, 1, 1, 2])
CURVES = {"a": Curve((0.0, 0.5), (4.0, 1.0), (2.0, 2.0)), "b": Curve((0.0, 0.5), (0.0, 0.0), (1.0, 0.5))}
EPOCHS = [
    {"epoch": n, "usable": 1 / n, "usable_pull": 0.5, "usable_push": 0.25, "quantiles": [0.1, 0.2, 0.3 * n]}
    for n in (1, 2, 3)
]


def found(loss):
    return similarity_gradient(loss, torch.randn(5, 4), LABELS)


@pytest.mark.slow
def test_files(tmp_path):
    gradient = found(MultiProxyAnchorLoss(3, 4, proxies_per_class=2))
    names = [file.name for file in draw_gradients(gradient, CURVES, EPOCHS, tmp_path / "deep" / "er")]
    assert names == [f"{name}.{kind}" for name in ("similarity", "curves", "capacity") for kind in ("svg", "png")]
    for name in names:
        if name.endswith("png"):
            with Image.open(tmp_path / "deep" / "er" / name) as image:
                assert image.width > 900
                assert len(image.convert("RGB").resize((90, 40)).getcolors(4_000)) > 5
    assert len(draw_gradients(gradient, CURVES, [], tmp_path)) == 4
    again = draw_gradients(gradient, CURVES, EPOCHS, tmp_path / "again")[0]
    assert again.read_bytes() == (tmp_path / "deep" / "er" / "similarity.svg").read_bytes()


def dots(gradient):
    return [axes.collections[0].get_offsets().tolist() for axes in _similarity(gradient).axes]


def test_a_dot_for_each_item_and_class():
    gradient = found(MultiProxyAnchorLoss(3, 4, proxies_per_class=2, pooling="max"))
    pull, push = dots(gradient)
    assert (len(pull), len(push)) == (5, 10)
    nearest = [max(gradient.similarity[0, :2].tolist()), 5 * -float(gradient.values[0, :2].sum())]
    assert pull[0] == pytest.approx(nearest)  # the first item is of the first class, of columns 0 and 1
    assert push[0] == pytest.approx(
        [float(gradient.similarity[0, 2:4].max()), 5 * float(gradient.values[0, 2:4].sum())]
    )


def test_a_dot_for_each_pair():
    gradient = found(pml_loss("supcon", 3, 4, temperature=0.1))
    pull, push = dots(gradient)
    assert (len(pull), len(push)) == (4, 16)
    assert pull[0] == pytest.approx([float(gradient.similarity[0, 1]), -5 * float(gradient.values[0, 1])])


def test_curves_are_shares_of_their_largest_value():
    pull, push = _draw_curves(CURVES).axes
    assert [list(line.get_ydata()) for line in pull.lines] == [[1.0, 0.25], [0.0, 0.0]]
    assert [list(line.get_ydata()) for line in push.lines] == [[1.0, 1.0], [1.0, 0.5]]


def test_epochs():
    left, right = _capacity(EPOCHS).axes
    assert list(left.lines[0].get_ydata()) == [1, 0.5, 1 / 3]
    assert [line.get_label() for line in left.lines] == ["whole gradient", "pull", "push"]
    assert list(right.lines[0].get_ydata()) == [0.2] * 3

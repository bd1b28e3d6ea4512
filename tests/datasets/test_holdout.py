import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyanchor.datasets.items import Items
from polyanchor.datasets.splits import hold_out_classes


def items(classes, each=3):
    return Items(torch.zeros(classes * each, 1), torch.arange(5, 5 + classes).repeat(each))


@given(st.integers(4, 60), st.floats(0.001, 0.999), st.integers(0, 99))
def test_no_class_is_on_both_sides_and_none_is_lost(classes, share, seed):
    kept, held = hold_out_classes(items(classes), share=share, seed=seed)
    assert not set(kept.labels.tolist()) & set(held.labels.tolist())
    assert len(kept) + len(held) == classes * 3
    assert len(kept.classes) >= 2
    assert len(held.classes) >= 2
    assert abs(len(held.classes) - share * classes) <= 2


def test_the_seed_decides():
    chosen = [hold_out_classes(items(40), share=0.2, seed=s)[1].classes.tolist() for s in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(chosen[0]) == 8


def test_the_order_of_the_items_does_not_matter():
    forward = items(20)
    backward = forward.subset(torch.arange(len(forward)).flip(0))
    ids = [hold_out_classes(part, share=0.3, seed=3)[1].classes.tolist() for part in (forward, backward)]
    assert ids[0] == ids[1]


def test_what_cannot_be_done_is_said():
    with pytest.raises(ValueError, match=r"at least 4 training classes .* got 3"):
        hold_out_classes(items(3), share=0.5, seed=0)
    for share in (0, 1, 1.5):
        with pytest.raises(ValueError, match="must lie between 0 and 1"):
            hold_out_classes(items(9), share=share, seed=0)
    with pytest.raises(ValueError, match="none of the 2 held-out classes has two items"):
        hold_out_classes(items(4, each=1), share=0.5, seed=0)


def test_huge_class_ids_cost_nothing():
    labels = torch.tensor([1, 2, 3, 10**15]).repeat(2)
    assert len(hold_out_classes(Items(torch.zeros(8, 1), labels), share=0.5, seed=0)[0]) == 4

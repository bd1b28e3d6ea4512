import pytest
import torch

from polyanchor.datasets.items import Items, Split
from polyanchor.datasets.splits import SourceItems, checked


def listing(labels, parts=None):
    items = Items(torch.zeros(len(labels), 1), torch.tensor(labels))
    return SourceItems("x", items, None if parts is None else torch.tensor(parts))


def test_without_parts_classes_divide():
    split = listing([0, 0, 1, 1]).split()
    assert (split.train.labels.tolist(), split.test.labels.tolist(), split.notes) == ([0, 0], [1, 1], ())


def test_parts_divide_and_a_closed_set_is_noted():
    split = listing([0, 1, 2, 2, 3, 3], [0, 0, 1, 1, 1, 1]).split()
    assert split.notes == ()
    assert listing([0, 1, 0, 0, 3, 3], [0, 0, 1, 1, 1, 1]).split().notes == (
        "closed set: 1 of 2 test classes were trained on",
    )
    assert listing([0, 1, 0, 1, 1], [0, 0, 1, 1, 1]).split().notes == ("closed set: test classes were trained on",)


def test_a_gallery_stands_apart():
    split = listing([0, 0, 5, 5], [0, 0, 1, 2]).split()
    assert split.gallery is not None
    assert split.gallery.labels.tolist() == [5]


@pytest.mark.parametrize(
    ("labels", "parts", "message"),
    [
        ([0, 0], [0, 0], "no test or query item"),
        ([0, 0], [1, 1], "no train item"),
        ([0, 1, 2], [0, 1, 2], "no class of the queries is in the gallery"),
        ([0, 1, 2], [0, 1, 1], "every test class has one item"),
        ([0, 0, 1, 2], None, "every test class has one item"),
    ],
)
def test_splits_in_which_nothing_can_be_found(labels, parts, message):
    with pytest.raises(ValueError, match=message):
        listing(labels, parts).split()


def test_a_share_for_a_source_with_its_own_split_is_refused():
    with pytest.raises(ValueError, match=r"train_share=0\.3 cannot apply"):
        listing([0, 1, 1], [0, 1, 1]).split(train_share=0.3)


def test_an_empty_test_part_is_named():
    items = listing([0, 0]).items
    with pytest.raises(ValueError, match="x: no test item is left"):
        checked(Split("x", items, items.subset(torch.zeros(0, dtype=torch.int64))))

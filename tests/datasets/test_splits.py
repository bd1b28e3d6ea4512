import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyanchor.datasets.items import Items
from polyanchor.datasets.splits import OFFICIAL, SplitSpec, split_by_class

SPEC = SplitSpec("toy/test", range(2, 4), n_images=4, n_classes=2, source="a paper")


# Witness: the totals that the makers of the data sets state, which the splits must add up to.
@pytest.mark.parametrize(
    ("name", "images", "classes"),
    [
        ("cub200", 11_788, 200),
        ("cars196", 16_185, 196),
        ("sop", 120_053, 22_634),
        ("inshop", 52_712, 7_982),
        ("cifar100", 60_000, 100),
        ("cifar100-coarse", 60_000, 20),
    ],
)
def test_the_parts_add_up_to_the_data_set(name, images, classes):
    specs = OFFICIAL[name].values()
    assert sum(spec.n_images for spec in specs) == images
    assert set().union(*(spec.classes for spec in specs)) == set(range(classes))
    assert all(spec.n_classes == len(spec.classes) for spec in specs)
    assert all(spec.source for spec in specs)


@pytest.mark.parametrize("name", ["cub200", "cars196", "sop", "inshop"])
def test_zero_shot_splits_share_no_class(name):
    train, *rest = OFFICIAL[name].values()
    assert all(not set(train.classes) & set(spec.classes) for spec in rest)


def test_a_complete_copy_passes_without_a_note():
    assert SPEC.verify(torch.tensor([3, 2, 2, 3])) == ()


def test_a_partial_copy_is_an_error_that_names_both_counts():
    with pytest.raises(ValueError, match=r"expected 4 images of 2 classes \(a paper\), found 3 images of 1 classes"):
        SPEC.verify(torch.tensor([3, 3, 3]))
    with pytest.raises(ValueError, match="--allow-partial"):
        SPEC.verify(torch.tensor([3, 3, 3, 3]))  # the images are as many, a class is missing


def test_a_partial_copy_that_is_allowed_leaves_a_note():
    (note,) = SPEC.verify(torch.tensor([3, 3, 2]), allow_partial=True)
    assert "not the complete data set (3 of 4 images, 2 of 2 classes)" in note
    assert "not comparable with published ones" in note


@pytest.mark.parametrize("allow_partial", [False, True])
def test_foreign_classes_and_nothing_at_all_are_always_errors(allow_partial):
    with pytest.raises(ValueError, match=r"class ids from 2 to 3, got \[0, 9\]"):
        SPEC.verify(torch.tensor([2, 0, 9, 3]), allow_partial=allow_partial)
    with pytest.raises(ValueError, match="found 0 images"):
        SPEC.verify(torch.tensor([], dtype=torch.int64), allow_partial=allow_partial)


@given(st.lists(st.integers(0, 30), min_size=2), st.floats(0.01, 0.99))
def test_split_by_class_takes_the_first_classes(labels, share):
    classes = sorted(set(labels))
    items = Items(torch.zeros(len(labels), 1), torch.tensor(labels), names=tuple(map(str, range(len(labels)))))
    if len(classes) < 2:
        with pytest.raises(ValueError, match="at least 2 classes, got 1"):
            split_by_class(items, train_share=share)
        return
    train, test = split_by_class(items, train_share=share)
    assert train.classes.tolist() + test.classes.tolist() == classes
    assert len(train.classes) in (int(share * len(classes)), 1, round(share * len(classes)))
    assert sorted(train.names + test.names, key=int) == [str(row) for row in range(len(labels))]


def test_the_share_is_not_lost_to_rounding():
    items = Items(torch.zeros(100, 1), torch.arange(100))
    assert [len(split_by_class(items, train_share=n / 100)[0]) for n in range(1, 100)] == list(range(1, 100))


@pytest.mark.parametrize("share", [0, 1, -0.5, 2])
def test_a_share_out_of_range(share):
    with pytest.raises(ValueError, match="train_share must lie between 0 and 1"):
        split_by_class(Items(torch.zeros(4, 1), torch.arange(4)), train_share=share)

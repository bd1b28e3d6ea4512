import pytest
import torch

from polyanchor.datasets.images import ImageFiles
from polyanchor.datasets.items import Items, Split


class Untouchable:
    """Images that must not be read."""

    def __len__(self):
        return 5

    def name(self, row):
        return f"image {row}"

    def read(self, row):
        raise AssertionError("read")


def items():
    return Items(Untouchable(), torch.tensor([4, 0, 4, 9, 0]), {0: "zero", 4: "four"})


def test_a_subset_reads_nothing_and_keeps_the_names():
    subset = items().subset(torch.tensor([3, 0]))
    assert subset.labels.tolist() == [9, 4]
    assert [subset.name(0), subset.name(1)] == ["image 3", "image 0"]
    assert len(subset) == 2
    assert subset.class_names[4] == "four"


def test_a_mask_chooses_rows_too():
    assert items().subset(torch.tensor([True, False, False, True, False])).labels.tolist() == [4, 9]


def test_classes_are_sorted_and_chosen_by_id():
    assert items().classes.tolist() == [0, 4, 9]
    chosen = items().select_classes([9, 4])
    assert chosen.labels.tolist() == [4, 4, 9]
    assert chosen.name(1) == "image 2"
    with pytest.raises(ValueError, match=r"class ids \[7\] have no items"):
        items().select_classes([7, 9])


def test_vectors_keep_their_names():
    vectors = Items(torch.arange(6.0).view(3, 2), torch.tensor([1, 1, 2]), names=("a", "b", "c"))
    assert vectors.is_vectors
    assert not items().is_vectors
    last = vectors.subset(torch.tensor([2]))
    assert (last.name(0), last.inputs.tolist()) == ("c", [[4.0, 5.0]])
    assert Items(torch.zeros(2, 1), torch.tensor([0, 1])).name(1) == "1"


def test_labels_become_int64_and_are_checked(tmp_path):
    assert Items(torch.zeros(2, 1), torch.tensor([0, 1], dtype=torch.int16)).labels.dtype == torch.int64
    with pytest.raises(TypeError, match=r"integer dtype, got torch.float32"):
        Items(torch.zeros(2, 1), torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"must have shape \(3,\).* got \(2,\)"):
        Items(ImageFiles(tmp_path, ["a", "b", "c"]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="0 or more, got -1"):
        Items(torch.zeros(2, 1), torch.tensor([0, -1]))
    with pytest.raises(TypeError, match=r"inputs must be floating point, got torch.int64"):
        Items(torch.zeros(2, 1, dtype=torch.int64), torch.tensor([0, 1]))
    for shape in ((2,), (2, 0), (2, 1, 1)):
        with pytest.raises(ValueError, match=r"inputs must have shape \(N, D\)"):
            Items(torch.zeros(shape), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="one per row, got 1 for 2"):
        Items(torch.zeros(2, 1), torch.tensor([0, 1]), names=("a",))


def test_no_rows_are_allowed():
    none = torch.zeros(0, dtype=torch.int64)
    assert len(Items(torch.zeros(0, 3), none)) == 0
    with pytest.raises(TypeError, match="floating point"):
        Items(torch.zeros(0, 3, dtype=torch.int64), none)


def test_values_are_frozen():
    with pytest.raises(AttributeError):
        items().labels = torch.zeros(5)
    split = Split("x", items(), items())
    assert split.gallery is None
    assert split.notes == ()

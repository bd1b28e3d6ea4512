import pytest

from polyanchor.datasets.formats._tables import encode_labels, part_numbers


def test_labels_that_are_numbers_stay_numbers():
    assert encode_labels([3, 1, 3]) == ([3, 1, 3], {})
    assert encode_labels(["3", "11"]) == ([3, 11], {})
    assert encode_labels(["07", "7"]) == ([0, 1], {0: "07", 1: "7"})
    assert encode_labels(["1", "a", "-2"]) == ([1, 2, 0], {0: "-2", 1: "1", 2: "a"})
    assert encode_labels(["é", "z"])[1] == {0: "z", 1: "é"}
    assert encode_labels([True, False]) == ([1, 0], {0: "False", 1: "True"})


def test_a_negative_label_leaves_the_other_ids_as_they_are():
    assert encode_labels([-1, 10, 9]) == ([-1, 10, 9], {})
    assert encode_labels(["-1", "10", "9"]) == ([-1, 10, 9], {})
    assert encode_labels(["-0", "1"])[1] == {0: "-0", 1: "1"}


@pytest.mark.parametrize("kind", [int, str])
def test_numbers_beyond_int64_are_names(kind):
    for fits in (-(2**63), 2**63 - 1):
        assert encode_labels([kind(fits)]) == ([fits], {})
    for beyond in (-(2**63) - 1, 2**63, 10**20):
        assert encode_labels([kind(beyond), kind(7)])[1] == dict(enumerate(sorted([str(beyond), "7"])))


@pytest.mark.parametrize("label", [1.0, float("nan"), b"cat", [1], None])
def test_other_labels_are_refused(label):
    with pytest.raises(ValueError, match=f"integers or texts, got {type(label).__name__}"):
        encode_labels([0, label])


def test_parts_are_known_in_any_case_and_with_space():
    assert part_numbers(["train", " Query", "GALLERY "], what="x") == ([0, 1, 2], ())
    assert part_numbers(["train", "Test", "valid"], what="x") == ([0, 1, 3], ())
    numbers, (note,) = part_numbers(["train", "val"], what="x")  # without a test part val is measured
    assert numbers == [0, 1] and "val is what the measures are taken on" in note
    with pytest.raises(ValueError, match=r"x: the split column may hold train, .*; got 'dev'"):
        part_numbers(["train", "dev"], what="x")
    with pytest.raises(ValueError, match="x: its split has both query and test, which are one part"):
        part_numbers(["train", "test", "query"], what="x")
    with pytest.raises(ValueError, match="both val and validation"):
        part_numbers(["train", "val", "validation", "test"], what="x")

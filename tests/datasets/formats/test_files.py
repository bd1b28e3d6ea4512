import pytest

from polyanchor.datasets.formats._tables import locate, missing_rows, of_files


def test_missing_rows(picture, tmp_path):
    picture(tmp_path / "a" / "1.png")
    there = picture(tmp_path / "2.png")
    assert missing_rows(tmp_path, ["a/1.png", "2.png", "a/3.png", "b/1.png", str(there), "/no/such.png"]) == [
        2,
        3,
        5,
    ]


def test_missing_files_are_an_error_or_left_out(picture, tmp_path):
    for name in ("1.png", "2.png"):
        picture(tmp_path / name)
    paths, labels = ["1.png", "gone.png", "2.png"], [7, 8, 9]
    with pytest.raises(ValueError, match=r"1 of 3 listed images are missing, the first is gone\.png"):
        of_files("x", tmp_path, paths, labels, parts=None, class_names={}, allow_partial=False)
    left = of_files("x", tmp_path, paths, labels, parts=[0, 1, 1], class_names={}, allow_partial=True)
    assert left.items.labels.tolist() == [7, 9]
    assert left.items.name(1) == "2.png"
    assert left.parts is not None
    assert left.parts.tolist() == [0, 1]
    assert left.missing == 1
    assert "1 of 3 listed images were missing" in left.notes[0]
    with pytest.raises(ValueError, match="1 of 1 listed images are missing"):
        of_files("x", tmp_path, ["gone.png"], [0], parts=None, class_names={}, allow_partial=True)


def test_locate_takes_the_parent_or_the_folder_itself(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "list.txt").touch()
    assert locate(tmp_path, ["set"], "list.txt", what="x") == tmp_path / "set"
    assert locate(tmp_path / "set", ["set"], "list.txt", what="x") == tmp_path / "set"
    with pytest.raises(FileNotFoundError, match=r"x not found: looked for .*other.txt.* --root"):
        locate(tmp_path, ["set"], "other.txt", what="x")


@pytest.mark.parametrize(
    ("label", "message"), [(-1, "x: labels must be class ids of 0 or more"), (10**20, "x: Overflow")]
)
def test_labels_that_cannot_be_name_the_source(picture, tmp_path, label, message):
    picture(tmp_path / "1.png")
    with pytest.raises(ValueError, match=message):
        of_files("x", tmp_path, ["1.png"], [label], parts=None, class_names={}, allow_partial=False)

import pytest

from polyanchor.datasets.sources import open_source


@pytest.fixture
def tree(tmp_path, picture):
    """Two images each of classes 1, 100, 101 and 200, in the official layout."""
    place = tmp_path / "CUB_200_2011"
    names = {1: "001.Albatross", 100: "100.Pelican", 101: "101.White_Pelican", 200: "200.Yellowthroat"}
    rows = [(number, name, copy) for number, name in names.items() for copy in (1, 2)]
    for _, name, copy in rows:
        picture(place / "images" / name / f"{copy}.jpg")
    (place / "images.txt").write_text("".join(f"{i} {n}/{c}.jpg\n" for i, (_, n, c) in enumerate(rows, 1)))
    # the label file in another order: rows belong together by image number, not by line
    lines = [f"{i} {number}\n" for i, (number, _, _) in enumerate(rows, 1)]
    (place / "image_class_labels.txt").write_text("".join(reversed(lines)))
    (place / "classes.txt").write_text("".join(f"{number} {name}\n" for number, name in names.items()))
    return tmp_path


def test_the_first_hundred_classes_train(tree):
    for root in (tree, tree / "CUB_200_2011"):
        split = open_source("cub200", root=root, allow_partial=True)
        assert split.train.labels.tolist() == [0, 0, 99, 99]
        assert split.test.labels.tolist() == [100, 100, 199, 199]
    assert split.train.class_names[99] == "100.Pelican"
    assert split.test.name(3) == "200.Yellowthroat/2.jpg"
    assert split.test.inputs.read(3).size == (12, 10)
    assert len(split.notes) == 2
    assert "8 of" not in split.notes[0]


def test_a_copy_that_is_not_complete_is_an_error(tree):
    with pytest.raises(ValueError, match=r"cub200/train: expected 5,864 images of 100 classes .* found\s+4 images"):
        open_source("cub200", root=tree)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("images.txt", "1 a/1.jpg\n2\n", r"images\.txt, line 2: expected a number and a text, got '2'"),
        ("image_class_labels.txt", "1 x\n" * 8, r"no class for"),
        ("image_class_labels.txt", "".join(f"{n} x\n" for n in range(9)), r"image_class_labels\.txt: invalid literal"),
        ("classes.txt", "x y\n", r"classes\.txt: invalid literal"),
    ],
)
def test_a_damaged_list_is_named(tree, file, text, message):
    (tree / "CUB_200_2011" / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        open_source("cub200", root=tree, allow_partial=True)


def test_an_image_without_a_class_is_an_error(tree):
    file = tree / "CUB_200_2011" / "image_class_labels.txt"
    file.write_text("\n".join(file.read_text().splitlines()[1:]))
    with pytest.raises(ValueError, match=r"no class for 200.Yellowthroat/2.jpg"):
        open_source("cub200", root=tree, allow_partial=True)

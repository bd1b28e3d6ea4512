import pytest

from polyanchor.datasets.sources import open_source

HEADING = "image_id class_id super_class_id path\n"


@pytest.fixture
def tree(tmp_path, picture):
    place = tmp_path / "Stanford_Online_Products"
    rows = {"train": [(1, 1, "a_final/1.JPG"), (2, 11318, "a_final/2.JPG")]}
    rows["test"] = [(3, 11319, "b_final/3.JPG"), (4, 11319, "b_final/4.JPG"), (5, 22634, "b_final/5.JPG")]
    for part, lines in rows.items():
        for _, _, path in lines:
            picture(place / path)
        text = "".join(f"{image} {number} 1 {path}\n" for image, number, path in lines)
        (place / f"Ebay_{part}.txt").write_text(HEADING + text)
    return tmp_path


def test_official_lists(tree):
    split = open_source("sop", root=tree, allow_partial=True)
    assert split.train.labels.tolist() == [0, 11317]
    assert split.test.labels.tolist() == [11318, 11318, 22633]
    assert split.test.name(1) == "b_final/4.JPG"
    assert split.test.inputs.read(2).mode == "RGB"
    with pytest.raises(ValueError, match="sop/train: expected 59,551 images of 11,318 classes"):
        open_source("sop", root=tree)


def test_lists_that_are_exchanged_are_refused(tree):
    place = tree / "Stanford_Online_Products"
    train, test = (place / "Ebay_train.txt").read_text(), (place / "Ebay_test.txt").read_text()
    (place / "Ebay_train.txt").write_text(test)
    (place / "Ebay_test.txt").write_text(train)
    with pytest.raises(ValueError, match=r"class ids from 0 to 11317, got \[11318, 22633\]"):
        open_source("sop", root=tree, allow_partial=True)


def test_a_line_of_another_form_is_named(tree):
    file = tree / "Stanford_Online_Products" / "Ebay_test.txt"
    file.write_text(file.read_text() + "what is this\n")
    with pytest.raises(ValueError, match=r"Ebay_test.txt, line 5: expected .* got 'what is this'"):
        open_source("sop", root=tree, allow_partial=True)

import pytest

from polyanchor.datasets.sources import open_source

ROWS = [
    ("img/MEN/id_00000009/01_1_front.jpg", "id_00000009", "gallery"),
    ("img/MEN/id_00000007/01_1_front.jpg", "id_00000007", "train"),
    ("img/MEN/id_00000001/01_1_front.jpg", "id_00000001", "query"),
    ("img/MEN/id_00000009/02_1_front.jpg", "id_00000009", "query"),
    ("img/MEN/id_00000002/01_1_front.jpg", "id_00000002", "train"),
    ("img/MEN/id_00000001/02_1_front.jpg", "id_00000001", "gallery"),
]


def write(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{path:70}{item:20}{part}" for path, item, part in rows]
    file.write_text("\n".join([str(len(rows)), "image_name item_id evaluation_status", *lines, ""]))


@pytest.mark.parametrize("archives", [False, True])
def test_queries_gallery_and_training_items(tmp_path, picture, archives):
    write(
        tmp_path / "Eval" / "list_eval_partition.txt" if archives else tmp_path / "list_eval_partition.txt",
        ROWS,
    )
    for path, _, _ in ROWS:
        picture((tmp_path / "Img" if archives else tmp_path) / path)
    split = open_source("inshop", root=tmp_path, allow_partial=True)
    assert split.train.labels.tolist() == [1, 0]
    assert split.test.labels.tolist() == [3997, 3998]
    assert split.gallery is not None
    assert split.gallery.labels.tolist() == [3998, 3997]
    assert split.gallery.class_names[3998] == "id_00000009"
    assert split.test.inputs.read(0).mode == "RGB"
    assert [note.split()[0] for note in split.notes] == ["inshop/train", "inshop/query", "inshop/gallery"]
    with pytest.raises(ValueError, match="inshop/train: expected 25,882 images of 3,997 classes"):
        open_source("inshop", root=tmp_path)


def test_an_item_in_two_parts_is_refused(tmp_path):
    write(tmp_path / "list_eval_partition.txt", [*ROWS, ("img/x.jpg", "id_00000007", "query")])
    with pytest.raises(ValueError, match="id_00000007 is in the training part and in another"):
        open_source("inshop", root=tmp_path, allow_partial=True)


def test_a_line_of_another_form_is_named(tmp_path):
    write(tmp_path / "list_eval_partition.txt", [("img/x.jpg", "id_00000007", "val")])
    with pytest.raises(ValueError, match=r"line 3: expected 'image item train|query|gallery'"):
        open_source("inshop", root=tmp_path, allow_partial=True)

import numpy as np
import pytest
import scipy.io

from polyanchor.datasets.benchmarks.cars196 import read
from polyanchor.datasets.sources import open_source


def annotations(rows, *fields):
    table = np.zeros((1, len(rows)), dtype=[(name, object) for name in fields])
    for column, row in enumerate(rows):
        table[0, column] = row
    return table


def write(file, rows, *fields, **more):
    file.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(file, {"annotations": annotations(rows, *fields), **more})


NAMES = np.array([f"car {n}" for n in range(1, 197)], dtype=object)[None]


def test_torchvision_layout(tmp_path, picture):
    place = tmp_path / "stanford_cars"
    train = [(14, "1.jpg"), (98, "2.jpg"), (99, "3.jpg"), (14, "4.jpg")]
    test = [(196, "1.jpg"), (99, "2.jpg"), (1, "3.jpg")]
    write(place / "devkit" / "cars_train_annos.mat", train, "class", "fname")
    scipy.io.savemat(place / "devkit" / "cars_meta.mat", {"class_names": NAMES})
    write(place / "cars_test_annos_withlabels.mat", test, "class", "fname")
    for folder, rows in (("cars_train", train), ("cars_test", test)):
        for _, name in rows:
            picture(place / folder / name)
    for root in (tmp_path, place):
        split = open_source("cars196", root=root, allow_partial=True)
        assert split.train.labels.tolist() == [13, 97, 13, 0]  # both official halves, put together by class
        assert split.test.labels.tolist() == [98, 195, 98]
    assert split.train.name(3) == "cars_test/3.jpg"
    assert split.train.class_names[13] == "car 14"
    with pytest.raises(ValueError, match="expected 8,054 images of 98 classes"):
        open_source("cars196", root=tmp_path)


@pytest.mark.parametrize("count", [1, 3])
def test_single_archive_layout(tmp_path, picture, count):
    rows = [("car_ims/1.jpg", 98, 0), ("car_ims/2.jpg", 99, 1), ("car_ims/3.jpg", 99, 1)][:count]
    write(tmp_path / "cars_annos.mat", rows, "relative_im_path", "class", "test", class_names=NAMES)
    for path, *_ in rows:
        picture(tmp_path / path)
    if count == 1:  # scipy makes a single row a bare value
        with pytest.raises(ValueError, match=r"cars196/test: .* found\s+0 images"):
            read(tmp_path, allow_partial=True)
        return
    listing = read(tmp_path, allow_partial=True)
    assert listing.items.labels.tolist() == [97, 98, 98]
    assert listing.items.name(2) == "car_ims/3.jpg"
    assert listing.items.class_names[0] == "car 1"


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cars196 \(Stanford Cars\).*--root"):
        open_source("cars196", root=tmp_path)


def test_a_damaged_annotation_file_is_named(tmp_path):
    file = tmp_path / "cars_annos.mat"
    for content in (b"", b"text" * 200, b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400)):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"cars_annos\.mat: "):
            read(tmp_path, allow_partial=True)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"other": 1}, "expected the variable annotations, got other"),
        ({"annotations": 1}, "must have the fields relative_im_path and class; class, relative_im_path missing"),
        ({"annotations": annotations([("a.jpg",)], "relative_im_path")}, "; class missing"),
        ({"annotations": annotations([("a.jpg", "x")], "relative_im_path", "class")}, "invalid literal"),
        (
            {"annotations": annotations([("a.jpg", 1)], "relative_im_path", "class")},
            "expected the variable class_names",
        ),
    ],
)
def test_a_foreign_annotation_file_is_named(tmp_path, table, message):
    scipy.io.savemat(tmp_path / "cars_annos.mat", table)
    with pytest.raises(ValueError, match=rf"cars_annos\.mat: .*{message}"):
        read(tmp_path, allow_partial=True)


@pytest.mark.data
def test_the_official_training_half(real_cars):
    split = open_source("cars196", root=real_cars, allow_partial=True)
    assert (len(split.train), len(split.test)) == (4_052, 4_092)
    assert split.train.classes.tolist() == list(range(98))
    assert split.test.classes.tolist() == list(range(98, 196))
    assert "4,052 of 8,054 images" in split.notes[0]
    assert split.test.class_names[195] == "smart fortwo Convertible 2012"
    assert min(split.train.inputs.read(0).size) == 128
    with pytest.raises(ValueError, match=r"found\s+4,052 images of 98 classes"):
        open_source("cars196", root=real_cars)

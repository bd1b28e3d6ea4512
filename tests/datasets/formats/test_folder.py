import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyanchor.datasets.formats.folder import read
from polyanchor.datasets.sources import open_source


def test_nested_classes_in_byte_order(tmp_path, picture):
    for name in ("b/2.png", "b/10.PNG", "a/z/1.jpg", "a/z/0.jpg", "B/x.png", "é/x.webp"):
        picture(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    picture(tmp_path / ".cache" / "x.png")
    picture(tmp_path / "b" / ".hidden.png")
    listing = read(tmp_path)
    names = [listing.items.name(row) for row in range(len(listing.items))]
    assert names == ["B/x.png", "a/z/0.jpg", "a/z/1.jpg", "b/10.PNG", "b/2.png", "é/x.webp"]
    assert listing.items.class_names == {0: "B", 1: "a/z", 2: "b", 3: "é"}
    assert listing.items.labels.tolist() == [0, 1, 1, 2, 2, 3]
    assert listing.parts is None


def test_without_a_split_classes_are_divided(tmp_path, picture):
    for name in "abcd":
        for copy in range(2):
            picture(tmp_path / name / f"{copy}.png")
    split = open_source(f"folder:{tmp_path}", train_share=0.75)
    assert (split.train.classes.tolist(), split.test.classes.tolist()) == ([0, 1, 2], [3])


def test_train_and_test_folders_are_the_split(tmp_path, picture):
    for name in ("train/cat/1.png", "train/dog/1.png", "test/dog/2.png", "test/dog/3.png", "test/cow/1.png"):
        picture(tmp_path / name)
    split = open_source(f"folder:{tmp_path}")
    assert split.train.class_names == {0: "cat", 1: "cow", 2: "dog"}
    assert (split.train.labels.tolist(), split.test.labels.tolist()) == ([0, 2], [1, 2, 2])
    assert split.notes == ("closed set: 1 of 2 test classes were trained on",)
    assert split.test.inputs.read(1).mode == "RGB"


def test_queries_and_gallery(tmp_path, picture):
    for name in ("train/a/1.png", "query/b/1.png", "gallery/b/2.png", "gallery/c/1.png"):
        picture(tmp_path / name)
    split = open_source(f"folder:{tmp_path}")
    assert split.gallery is not None
    assert (split.test.labels.tolist(), split.gallery.labels.tolist()) == ([1], [1, 2])


def test_a_class_called_train_beside_others_is_a_class_and_noted(tmp_path, picture):
    for name in ("train/1.png", "train/2.png", "bus/1.png", "bus/2.png"):
        picture(tmp_path / name)
    listing = read(tmp_path)
    assert listing.items.class_names == {0: "bus", 1: "train"} and listing.parts is None
    assert listing.notes == ("the folder train is taken for a class, as it stands beside others",)


@pytest.mark.parametrize("strange", ["bus/1.png", "1.png"])
def test_parts_of_a_split_beside_other_images_are_refused(tmp_path, picture, strange):
    for name in ("val/cat/1.png", "test/cat/2.png", strange):
        picture(tmp_path / name)
    with pytest.raises(ValueError, match=rf"parts of a split \(test, val\) and other images .* first {strange}"):
        read(tmp_path)


WORDS = ["train", "val", "valid", "validation", "test", "query", "gallery"]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=5, unique=True),
    cases=st.lists(st.sampled_from([str.lower, str.title, str.upper]), min_size=5, max_size=5),
    above=st.sampled_from([(), ("images",)]),
    below=st.booleans(),
)
def test_no_item_trains_or_chooses_that_its_folder_sets_apart(words, cases, above, below):
    """For any subset of the names, in any case, at any depth, below the classes or above them."""
    with tempfile.TemporaryDirectory() as folder:
        for word, case in zip(words, cases, strict=False):
            for cls in "abcdefgh":
                places = [*above, cls, case(word)] if below else [*above, case(word), cls]
                place = Path(folder, *places)
                place.mkdir(parents=True)
                for number in range(2):
                    (place / f"{number}.png").touch()
        try:
            split = read(Path(folder)).split()
        except ValueError:
            return  # a clear error is right for what makes no split
        part_of = {"train": "train", "query": "test", "valid": "val", "validation": "val"}
        seen = {"train": split.train, "test": split.test, "gallery": split.gallery, "val": split.validation}
        if len(words) > 1:
            named = {part_of.get(word, word) for word in words}
            for name, items in seen.items():
                want = {"val"} if name == "test" and named == {"train", "val"} else {name}
                paths = [items.name(row).split("/") for row in range(len(items))] if items is not None else []
                found = {part_of.get(x.lower(), x.lower()) for path in paths for x in path if x.lower() in WORDS}
                assert found <= want
            assert set(split.train.class_names.values()) == {"/".join([*above, cls]) for cls in "abcdefgh"}
        else:
            assert words == ["train"] or below or above  # nothing else can train


def test_what_systems_leave_behind_makes_no_class_and_decides_no_split(tmp_path, picture):
    for name in ("train/cat/1.png", "train/cat/@eaDir/1.png/THUMB.png", "test/dog/1.png", "__MACOSX/train/cat/1.png"):
        picture(tmp_path / name)
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "annotations").mkdir()  # no images in it, so it does not count
    (tmp_path / "features.h5").write_bytes(b"x")
    (tmp_path / "train" / "cat" / "clip.mpg").write_bytes(b"x")
    listing = read(tmp_path)
    assert listing.items.class_names == {0: "cat", 1: "dog"} and listing.parts.tolist() == [1, 0]
    assert listing.notes == (
        "3 folders or files of systems passed over, the first is __MACOSX",
        "2 files that are no images passed over (.h5, .mpg)",
    )


def test_images_that_are_not_read_are_counted_and_lost_classes_named(tmp_path, picture):
    picture(tmp_path / "cat" / "1.png")
    for name in ("cat/2.heic", "dog/1.heic", "dog/2.NEF"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    [note] = read(tmp_path).notes
    assert note.startswith("3 images in formats that are not read (.heic, .nef), the first is cat/2.heic;")
    assert "no image is left in dog;" in note


def test_a_pipe_among_the_images_is_not_waited_for(tmp_path, picture):
    picture(tmp_path / "cat" / "1.png")
    os.mkfifo(tmp_path / "cat" / "2.png")
    (tmp_path / "cat" / "3.png").symlink_to(tmp_path / "nowhere.png")
    listing = read(tmp_path)
    assert len(listing.items) == 1 and listing.notes[0].startswith("2 entries named like images are no regular files")


def test_a_name_that_is_not_utf8_is_refused_before_any_work(tmp_path, picture):
    picture(tmp_path / "cat" / "1.png")
    (tmp_path / "cat" / "1.png").rename(tmp_path / "cat" / "caf\udce9.png")
    with pytest.raises(ValueError, match=r"the name cat/caf\\xe9.png is not UTF-8; rename it"):
        read(tmp_path)


def test_links_are_followed_and_no_folder_is_read_twice(tmp_path, picture):
    root = tmp_path / "root"
    for name in ("root/cat/1.png", "root/dog/1.png", "far/emu/1.png", "far/emu/small/2.png"):
        picture(tmp_path / name)
    (root / "a").symlink_to(tmp_path / "far" / "emu", target_is_directory=True)
    (root / "cat" / "round").symlink_to(root, target_is_directory=True)
    (root / "again").symlink_to(root / "dog", target_is_directory=True)
    (tmp_path / "far" / "emu" / "up").symlink_to(tmp_path / "far", target_is_directory=True)
    listing = read(root)
    names = [listing.items.name(row) for row in range(len(listing.items))]
    assert names == ["a/1.png", "a/small/2.png", "cat/1.png", "dog/1.png"]  # dog under its own name, not "again"
    assert listing.notes == ("3 links left out, as their folders were read already, the first is again",)


def test_a_link_for_a_part_of_the_split(tmp_path, picture):
    picture(tmp_path / "far" / "b" / "1.png")
    picture(tmp_path / "far" / "b" / "2.png")
    picture(tmp_path / "root" / "train" / "a" / "1.png")
    (tmp_path / "root" / "test").symlink_to(tmp_path / "far", target_is_directory=True)
    assert len(open_source(f"folder:{tmp_path / 'root'}").test) == 2
    (tmp_path / "root" / "train").rename(tmp_path / "kept")
    (tmp_path / "root" / "train").symlink_to(tmp_path / "far", target_is_directory=True)
    with pytest.raises(ValueError, match="two parts of its split link to the same folder"):
        open_source(f"folder:{tmp_path / 'root'}")


def test_errors_say_what_is_wrong(tmp_path, picture):
    with pytest.raises(NotADirectoryError, match="not a folder"):
        open_source(f"folder:{tmp_path / 'gone'}")
    with pytest.raises(ValueError, match="holds no images"):
        open_source(f"folder:{tmp_path}")
    picture(tmp_path / "a" / "1.png")
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        open_source(f"folder:{tmp_path}")
    picture(tmp_path / "b" / "1.png")
    with pytest.raises(ValueError, match="every test class has one item"):
        open_source(f"folder:{tmp_path}")
    picture(tmp_path / "loose.png")
    with pytest.raises(ValueError, match=r"loose\.png lies in no class folder"):
        open_source(f"folder:{tmp_path}")


@pytest.mark.data
@pytest.mark.parametrize(("number", "classes"), [(1, 136), (2, 156)])
def test_omniglot(real_omniglot, number, classes):
    items = read(real_omniglot / f"images_background_small{number}").items
    assert items.labels.bincount().tolist() == [20] * classes
    assert all(name.count("/") == 1 for name in items.class_names.values())
    assert items.inputs.read(0).size == (105, 105)

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from polyanchor.datasets.sources import KNOWN, open_items, open_source


def test_an_unknown_source_names_the_nearest(subtests):
    for spec, near in (("cub20", "cub200"), ("cars", "cars196"), ("parqet:x", "parquet")):
        with subtests.test(spec):
            with pytest.raises(
                ValueError, match=f"must be one of digits, .*; got '{spec}'; did you mean '{near}'"
            ) as caught:
                open_source(spec)
            assert all(info.name in str(caught.value) for info in KNOWN)


def test_a_source_of_the_wrong_form(subtests):
    for spec in ("folder", "folder:", "csv:", "digits:x", ""):
        with subtests.test(spec), pytest.raises(ValueError, match=r"names no path|must be one of"):
            open_source(spec)


def test_options_that_do_not_apply_are_refused():
    with pytest.raises(ValueError, match="labels='coarse' is for cifar100 alone"):
        open_source("digits", labels="coarse")
    with pytest.raises(ValueError, match=r"train_share=0\.2 cannot apply with test="):
        open_source("digits", test="digits", train_share=0.2)


def test_another_source_to_test_on(tmp_path, picture):
    for place, names in (("one", ("a", "b")), ("two", ("b", "c"))):
        for name in names:
            for copy in range(2):
                picture(tmp_path / place / name / f"{copy}.png")
    split = open_source(f"folder:{tmp_path / 'one'}", test=f"folder:{tmp_path / 'two'}")
    assert (split.train.labels.tolist(), split.test.labels.tolist()) == ([0, 0, 1, 1], [2, 2, 3, 3])
    assert split.test.class_names == {2: "b", 3: "c"}
    assert "1 class names are in both sources, the first is 'b'" in split.notes[-1]
    single = open_source(f"folder:{tmp_path / 'one'}", test="digits")  # a source with one kind of split or none
    assert (len(single.test), single.test.classes.tolist()) == (1797, list(range(2, 12)))


@pytest.fixture
def two(tmp_path, picture):
    """Open one folder for training and another for testing, with the classes named."""

    def opened(one, other, **options):
        for place, names in (("one", one), ("two", other)):
            for name in names:
                for copy in range(2):
                    picture(tmp_path / place / name / f"{copy}.png")
        return open_source(f"folder:{tmp_path / 'one'}", test=f"folder:{tmp_path / 'two'}", **options)

    return opened


def test_shared_classes_are_left_out(two):
    split = two("ab", "bc", drop_shared=True)
    assert (len(split.train), split.test.labels.tolist()) == (4, [3, 3])
    assert "1 classes of" in split.notes[-1] and "were left out" in split.notes[-1]


def test_nothing_is_left_if_all_are_shared(two):
    with pytest.raises(ValueError, match="no test item is left"):
        two("abc", "ab", drop_shared=True)


def test_shared_classes_without_items_and_items_without_names(tmp_path):
    vectors = torch.ones(6, 2)
    names = {"one": {"0": "cat", "1": "dog", "7": "emu"}, "two": {"0": "cat", "5": "emu", "9": "fox"}}
    for place, said in names.items():
        arrays = {"vectors": vectors, "labels": torch.tensor([0, 0, 1, 1, 5, 5])}
        about = {"polyanchor": json.dumps({"class_names": said})}
        save_file(arrays, tmp_path / f"{place}.safetensors", metadata=about)
    one, two = (f"features:{tmp_path / place}.safetensors" for place in names)
    split = open_source(one, test=two, drop_shared=True)
    # 9 is a name without items; 1 has items and no name; emu has items in the second source alone
    assert split.test.labels.tolist() == [7, 7, 11, 11]
    assert "1 classes of" in split.notes[-1]


def test_dropping_shared_classes_needs_names(tmp_path, picture):
    picture(tmp_path / "1.png")
    (tmp_path / "list.csv").write_text("path,label\n" + "1.png,3\n" * 2)
    numbers, digits = f"csv:{tmp_path / 'list.csv'}", "digits"
    for one, other in ((numbers, digits), (digits, numbers)):
        with pytest.raises(ValueError, match=r"drop_shared compares class names, and csv:.*list\.csv has none"):
            open_source(one, test=other, drop_shared=True)
    with pytest.raises(ValueError, match="drop_shared is for two sources"):
        open_source(digits, drop_shared=True)


def test_all_items_whatever_their_part(tmp_path, picture):
    for name in ("train/a/1.png", "test/b/1.png"):
        picture(tmp_path / name)
    assert open_items(f"folder:{tmp_path}").labels.tolist() == [1, 0]


def test_missing_images_are_counted(tmp_path, picture):
    picture(tmp_path / "1.png")
    (tmp_path / "list.csv").write_text("path,label\n1.png,0\n1.png,1\n1.png,1\ngone.png,1\n")
    for options in ({}, {"test": "digits"}):
        assert open_source(f"csv:{tmp_path / 'list.csv'}", allow_partial=True, **options).missing == 1


def test_images_and_vectors_do_not_mix(tmp_path):
    import numpy as np

    np.savez(tmp_path / "x.npz", vectors=np.zeros((2, 3), dtype="f4"), labels=np.array([1, 1]))
    with pytest.raises(ValueError, match="must both hold images or both hold vectors"):
        open_source("digits", test=f"features:{tmp_path / 'x.npz'}")


@pytest.mark.data
def test_omniglot_across_its_two_sets(real_omniglot):
    one, two = (f"folder:{real_omniglot / f'images_background_small{n}'}" for n in (1, 2))
    split = open_source(one, test=two)
    assert (len(split.train), len(split.test)) == (136 * 20, 156 * 20)
    assert split.test.classes.tolist() == list(range(136, 136 + 156))
    assert "50 class names are in both" in split.notes[-1]  # Greek and Latin
    split = open_source(one, test=two, drop_shared=True)
    assert (len(split.train), len(split.test)) == (136 * 20, 106 * 20)


@pytest.mark.slow
def test_importing_the_room_loads_no_optional_package():
    code = (
        "import sys; from polyanchor.datasets import loading, samplers, sources, splits, transforms; "
        "names = 'torchvision', 'PIL', 'pyarrow', 'scipy', 'sklearn', 'safetensors'; "
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_limit_of_pixels_reaches_every_part_of_both_sources(tmp_path):
    for source in ("a", "b"):
        for name in "cdef":
            for copy in range(2):
                path = tmp_path / source / name / f"{copy}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (4, 4)).save(path)
    sources = [f"folder:{tmp_path / source}" for source in ("a", "b")]
    for most, reads in ((15, False), (16, True)):
        split = open_source(sources[0], test=sources[1], max_pixels=most)
        for items in (split.train, split.test, open_items(sources[0], max_pixels=most)):
            if reads:
                assert items.inputs.read(7).size == (4, 4)
            else:
                with pytest.raises(ValueError, match=r"data\.max_pixels allows 15"):
                    items.inputs.read(7)
    with pytest.raises(ValueError, match="max_pixels must be at least 1"):
        open_source(sources[0], max_pixels=0)


def test_class_numbers_that_do_not_fit_beside_each_other(tmp_path):
    vectors, labels = torch.eye(6), torch.arange(6) // 2
    for name, first in (("one", 2**63 - 3), ("two", 5 * 10**18), ("small", 0)):
        save_file({"vectors": vectors, "labels": labels + first}, tmp_path / f"{name}.safetensors")
    split = open_source(f"features:{tmp_path / 'one.safetensors'}", test=f"features:{tmp_path / 'two.safetensors'}")
    assert split.train.labels.tolist() == labels.tolist()
    assert split.test.labels.tolist() == (labels + 3).tolist()
    kept = open_source(f"features:{tmp_path / 'two.safetensors'}", test=f"features:{tmp_path / 'small.safetensors'}")
    assert kept.train.classes.tolist() == [5 * 10**18 + number for number in range(3)]
    assert kept.test.classes.tolist() == [5 * 10**18 + number for number in range(3, 6)]

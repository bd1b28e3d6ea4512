import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from polyanchor.cli.data import app


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path):
    for name in "abcd":
        (tmp_path / name).mkdir()
        for copy in range(2):
            Image.new("RGB", (4, 4)).save(tmp_path / name / f"{copy}.png")
    return tmp_path


def test_list_names_every_source():
    table, rows = run("list"), run("list", "--json")
    assert table.exit_code == rows.exit_code == 0
    names = [row["name"] for row in json.loads(rows.stdout)]
    assert {"digits", "cub200", "folder:DIR"} <= set(names)
    assert all(name[:8] in table.stdout for name in names)


def test_help_shows_an_example():
    assert "polyanchor data list --json" in run("list", "--help").stdout
    assert "polyanchor data verify cars196" in run("verify", "--help").stdout


def test_verify_a_source_without_official_numbers(folder):
    done = run("verify", f"folder:{folder}", "--images", "--json")
    assert done.exit_code == 0
    said = json.loads(done.stdout)
    assert [(part["part"], part["images"], part["images_expected"]) for part in said["parts"]] == [
        ("train", 4, None),
        ("test", 4, None),
    ]
    assert said["bad_images"] == []


def test_verify_names_the_corrupt_images(folder):
    (folder / "c" / "1.png").write_bytes(b"x")
    assert run("verify", f"folder:{folder}").exit_code == 0
    done = run("verify", f"folder:{folder}", "--images")
    assert done.exit_code == 1
    assert "c/1.png cannot be read" in done.stdout


def test_verify_names_the_large_images(folder):
    assert run("verify", f"folder:{folder}", "--images", "--max-pixels", 16).exit_code == 0
    done = run("verify", f"folder:{folder}", "--images", "--max-pixels", 15)
    assert done.exit_code == 1
    assert "c/1.png cannot be read: it has 16 pixels, and data.max_pixels allows 15" in done.stdout


def test_verify_a_partial_copy(folder):
    place = folder / "CUB_200_2011"
    lines = [(1, 1, "a/0.png"), (2, 101, "b/0.png"), (3, 101, "b/1.png")]
    place.mkdir()
    (place / "images.txt").write_text("".join(f"{i} {path}\n" for i, _, path in lines))
    (place / "image_class_labels.txt").write_text("".join(f"{i} {number}\n" for i, number, _ in lines))
    for name in "ab":
        (place / "images").mkdir(exist_ok=True)
        (folder / name).rename(place / "images" / name)
    done = run("verify", "cub200", "--root", folder)
    assert done.exit_code == 1
    assert "5864" in done.stdout
    assert "not the complete data set" in done.stdout
    assert run("verify", "cub200", "--root", folder, "--allow-partial").exit_code == 0


def test_verify_a_list_with_missing_images(folder):
    names = ["a/0.png", "a/1.png", "b/0.png", "b/1.png", "b/gone.png"]
    (folder / "list.csv").write_text("path,label\n" + "".join(f"{name},{name[0]}\n" for name in names))
    done = run("verify", f"csv:{folder / 'list.csv'}")
    assert done.exit_code == 1
    assert "1 of 5 listed images were missing" in done.stdout
    rows = run("verify", f"csv:{folder / 'list.csv'}", "--json", "--allow-partial")
    assert (rows.exit_code, json.loads(rows.stdout)["missing"]) == (0, 1)


def test_bad_usage_is_left_to_the_caller():
    done = run("verify", "cub20")
    assert isinstance(done.exception, ValueError)
    assert "did you mean 'cub200'" in str(done.exception)

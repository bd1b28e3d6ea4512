"""The right images in the right places."""

import numpy as np
import pytest
from PIL import Image

from polyanchor.index.sheet import APART, SIDE, WORDS, picture, write_picture
from polyanchor.index.types import Hit
from polyanchor.viz.sheets import GAP

COLOURS = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255)}


@pytest.fixture
def shown(tmp_path):
    """Two queries, and hits: two with an image, one whose image is gone, one without a path."""
    for name in COLOURS:
        Image.new("RGB", (30, 30), name).save(tmp_path / f"{name}.png")
    paths = {name: str(tmp_path / f"{name}.png") for name in COLOURS}
    hits = [
        [Hit(0, 1.0, "reds", paths["red"]), Hit(1, 0.5, "a very long name of a class, really", paths["green"])],
        [Hit(2, 0.25, None, str(tmp_path / "gone.png")), Hit(3, 0.1, None, None)],
    ]
    return [paths["blue"], "row 7"], hits


def middle(sheet, line, column):
    left = GAP if column < 0 else GAP + SIDE + APART + column * (SIDE + GAP)
    return sheet.getpixel((left + SIDE // 2, GAP + line * (SIDE + WORDS + GAP) + SIDE // 4))


def test_queries_first_then_their_hits(shown):
    sheet = picture(*shown)
    assert [middle(sheet, 0, column) for column in (-1, 0, 1)] == [COLOURS[name] for name in ("blue", "red", "green")]
    grey = (224, 224, 224)
    assert [middle(sheet, 1, column) for column in (-1, 0, 1)] == [grey, grey, grey]
    assert sheet.width == GAP + 3 * (SIDE + GAP) + APART


def test_words_stay_below_their_own_image(shown):
    pixels = np.asarray(picture(*shown))
    words = pixels[GAP + SIDE : GAP + SIDE + WORDS]
    for left, right in ((GAP, GAP + SIDE), (GAP + SIDE + APART, GAP + 2 * SIDE + APART)):
        assert (words[:, left:right] < 100).any()
    assert (words[:, -GAP:] == 255).all()  # the long name is cut


def test_it_is_written_in_one_step_in_the_form_of_its_suffix(shown, tmp_path):
    write_picture(*shown, tmp_path / "new" / "hits.jpg")
    assert Image.open(tmp_path / "new" / "hits.jpg").format == "JPEG"
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["hits.jpg"]
    with pytest.raises(ValueError, match=r"--picture must end in .png or .jpg, got hits.txt"):
        write_picture(*shown, tmp_path.__class__("hits.txt"))

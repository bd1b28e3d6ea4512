"""Names and kinds; the pixels are tested in deploy/test_embedder.py."""

import numpy as np
import pytest
from PIL import Image

from polyanchor.data.given import GivenImages


def test_names(photos):
    file = photos / "class0" / "0.png"
    images = GivenImages([file, str(file), Image.open(file), Image.new("L", (2, 2))])
    assert [images.name(row) for row in range(len(images))] == [str(file)] * 3 + ["image 3"]


def test_every_mode_becomes_rgb_and_is_looked_at_once():
    deep = Image.fromarray(np.full((3, 5), 40_000, dtype="uint16"))
    images = GivenImages([Image.new("1", (5, 3)), Image.new("RGBA", (5, 3)), Image.new("CMYK", (5, 3)), deep])
    for row in range(4):
        seen = []
        assert images.read(row, lambda *size, seen=seen: seen.append(size) or 1.0).mode == "RGB"
        assert seen == [(5, 3)]
    assert images.read(3).getpixel((0, 0)) == (155,) * 3  # not cut off at 255


def test_the_kinds():
    with pytest.raises(TypeError, match="got int at place 1"):
        GivenImages(["a.png", 3])

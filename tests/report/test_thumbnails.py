"""Each thumbnail is where the page's script looks for it."""

import base64
import io

import numpy as np
from PIL import Image

from polyanchor.report.thumbnails import ACROSS, inline, read_cells, sprites


def cell(colour, size=(20, 20)):
    Image.new("RGB", size, colour).save(encoded := io.BytesIO(), "PNG")
    return encoded.getvalue()


def test_cells_stand_in_order():
    colours = [(int(a), int(b), 99) for a, b in np.random.default_rng(0).integers(0, 255, (ACROSS**2 + 40, 2))]
    made = sprites([cell(colour) for colour in colours], budget=10**7)
    sheets = [Image.open(io.BytesIO(file)).convert("RGB") for file in made.files]
    assert [sheet.size for sheet in sheets] == [(ACROSS * made.side,) * 2, (ACROSS * made.side, 2 * made.side)]
    for number, colour in enumerate(colours):
        sheet, place = sheets[number // ACROSS**2], number % ACROSS**2
        middle = tuple(made.side * one + made.side // 2 for one in (place % ACROSS, place // ACROSS))
        assert np.abs(np.subtract(sheet.getpixel(middle), colour)).max() < 25


def test_they_are_as_large_as_the_budget_allows():
    pixels = np.random.default_rng(0).integers(0, 255, (60, 64, 64, 3), dtype=np.uint8)
    noise = []
    for one in pixels:
        Image.fromarray(one).save(encoded := io.BytesIO(), "PNG")
        noise.append(encoded.getvalue())
    large, little = sprites(noise, budget=10**7), sprites(noise, budget=30_000)
    assert large.side == 112
    assert little.side < 60 and sum(map(len, little.files)) <= 30_000


def test_a_picture_of_its_own():
    kind, _, content = inline(cell("red", (300, 150))).partition(",")
    assert kind == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (112, 56)


def test_each_image_is_read_once(opened, monkeypatch):
    reads = []
    images = opened.queries.items.inputs
    read = type(images).read
    monkeypatch.setattr(type(images), "read", lambda self, row, look=None: reads.append(row) or read(self, row, look))
    found = read_cells([(opened.queries, [0, 3, 3]), (opened.queries, [3, 5])])
    assert sorted(found) == [("test", 0), ("test", 3), ("test", 5)]
    assert len(reads) == 3

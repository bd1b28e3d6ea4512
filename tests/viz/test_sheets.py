"""Queries with their neighbours: the right images in the right frames."""

import numpy as np
import pytest
import torch

from polyanchor.datasets.images import ImageArrays
from polyanchor.datasets.items import Items
from polyanchor.types import Embeddings
from polyanchor.viz.sheets import COLOURS, FRAME, GAP, MARGIN, THUMBNAIL, TITLE, Line, query_sheet, sheet

SHADES = [(250, 250, 10), (10, 250, 250), (250, 10, 250), (10, 10, 250)]
# items 0 and 1 are the same vector: 0 stands before 1 in 1's own list, and 1 must be left out by its number
VECTORS = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
LABELS = torch.tensor([5, 5, 6, 5])


def items():
    pixels = np.stack([np.full((20, 20, 3), shade, dtype=np.uint8) for shade in SHADES])
    return Items(ImageArrays(pixels, list("abcd")), LABELS, {5: "five", 6: "six"})


def colour(picture, line, column, x=THUMBNAIL // 2, y=THUMBNAIL // 2):
    side = THUMBNAIL + GAP
    return picture.getpixel((MARGIN + column * side + x, TITLE + line * side + y))


def rgb(mark):
    return tuple(bytes.fromhex(COLOURS[mark][1:]))


def test_the_query_then_its_neighbours_in_frames_that_say_right_or_wrong():
    found = Embeddings(VECTORS, LABELS, class_names={5: "five", 6: "six"})
    picture = query_sheet(items(), found, [1, 2], k=3, title="some")
    assert [colour(picture, 0, column) for column in range(4)] == [SHADES[row] for row in (1, 0, 2, 3)]
    assert [colour(picture, 1, column) for column in range(4)] == [SHADES[row] for row in (2, 0, 1, 3)]
    edges = [[colour(picture, line, column, x=FRAME // 2) for column in range(4)] for line in range(2)]
    assert edges[0] == [SHADES[1], rgb("right"), rgb("wrong"), rgb("right")]
    assert edges[1] == [SHADES[2], rgb("wrong"), rgb("wrong"), rgb("wrong")]


def test_a_wrong_one_is_told_by_its_corner_too():
    picture = sheet(items(), "", [Line([], [0, 0, 0], ["right", "wrong", ""])])
    corners = [colour(picture, 0, column, x=7, y=7) for column in range(3)]
    assert corners == [SHADES[0], rgb("wrong"), SHADES[0]]


def test_all_others_where_there_are_fewer_than_asked_for():
    picture = query_sheet(items(), Embeddings(VECTORS, LABELS), [0], k=50, title="")
    assert picture.width == MARGIN + 4 * (THUMBNAIL + GAP) + GAP


def test_vectors_have_no_sheet():
    with pytest.raises(ValueError, match="needs items that are images, got vectors"):
        sheet(Items(VECTORS, LABELS), "", [Line([], [0])])

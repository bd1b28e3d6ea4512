"""Rows of nearest images: right images in right places, for files, bytes and arrays."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from polyanchor.analysis.proxies import study_proxies
from polyanchor.analysis.proxy_report import _words, contact_sheet, nearest_rows
from polyanchor.datasets.images import ImageArrays, ImageBytes, ImageFiles
from polyanchor.datasets.items import Items
from polyanchor.types import Embeddings
from polyanchor.viz.sheets import GAP, MARGIN, THUMBNAIL, TITLE

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]
# Class 6: rows 0, 2, 3 at centre 2 (row 3 nearest, then 0, then 2), row 4 at centre 0; row 1 is of another class.
VECTORS = torch.tensor([[0.0, 0.2, 1.0], [0.0, 0.0, 1.0], [0.0, 0.5, 1.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
LABELS = torch.tensor([6, 7, 6, 6, 6])


def pixels():
    return np.stack([np.full((12, 12, 3), colour, dtype=np.uint8) for colour in COLOURS])


def arrays(folder):
    return ImageArrays(pixels(), [f"a{row}" for row in range(5)])


def png(folder):
    cells = []
    for one in pixels():
        Image.fromarray(one).save(cell := io.BytesIO(), "png")
        cells.append(cell.getvalue())
    return ImageBytes(cells, [f"b{row}" for row in range(5)])


def files(folder):
    for row, one in enumerate(pixels()):
        Image.fromarray(one).save(folder / f"{row}.png")
    return ImageFiles(folder, [f"{row}.png" for row in range(5)])


def studied(inputs, sublabels=None):
    items = Items(inputs, LABELS, {6: "six"}, sublabels=sublabels)
    study = study_proxies(
        Embeddings(VECTORS, LABELS, class_names=items.class_names), torch.eye(3).repeat(2, 1, 1), torch.tensor([6, 7])
    )
    return study, items


def test_nearest_first_and_the_centre_with_most_items_first():
    study, items = studied(VECTORS)
    found = nearest_rows(study, items, study.classes[0], 2)
    assert list(found.items()) == [(2, [3, 0]), (0, [4])]


@pytest.mark.parametrize("kind", [arrays, png, files])
def test_images_stand_where_they_belong(kind, tmp_path):
    study, items = studied(kind(tmp_path))
    sheet = contact_sheet(study, items, study.classes[0])
    side = THUMBNAIL + GAP
    assert sheet.mode == "RGB" and sheet.size == (MARGIN + 3 * side + GAP, TITLE + 2 * side + GAP)

    def colour(line, column):
        return sheet.getpixel((MARGIN + column * side + THUMBNAIL // 2, TITLE + line * side + THUMBNAIL // 2))

    assert [colour(0, column) for column in range(3)] == [COLOURS[row] for row in (3, 0, 2)]
    assert [colour(1, column) for column in range(2)] == [COLOURS[4], (255, 255, 255)]


def test_words_beside_each_row_and_above(tmp_path):
    plain = contact_sheet(*(found := studied(arrays(tmp_path))), found[0].classes[0])
    with_sub = contact_sheet(*(found := studied(arrays(tmp_path), torch.arange(5))), found[0].classes[0])
    for sheet in plain, with_sub:
        words = [np.asarray(sheet)[TITLE + (THUMBNAIL + GAP) * line :][:THUMBNAIL, :MARGIN] for line in range(2)]
        assert all((part < 128).any() for part in words)
        assert (np.asarray(sheet)[:TITLE] < 128).any()
    assert plain.tobytes() != with_sub.tobytes()  # the sub-class is one line more


def test_the_words_are_those_of_the_centre():
    study, items = studied(VECTORS, torch.tensor([5, 8, 5, 8, 8]))
    *words, sub_class = _words(study, items, study.classes[0], 2)
    assert words == ["centre 2", "nearest of 3 items", f"usage {study.classes[0].usage[2]:.1%}"]
    assert sub_class == "sub-class 5: 67%"


def test_oblong_images_keep_their_shape():
    wide = ImageArrays(np.zeros((5, 10, 40, 3), dtype=np.uint8), [str(row) for row in range(5)])
    study, items = studied(wide)
    first = np.asarray(contact_sheet(study, items, study.classes[0]))[TITLE:, MARGIN:][:THUMBNAIL, :THUMBNAIL]
    assert (first == 0).all(axis=2).sum() == pytest.approx(THUMBNAIL * THUMBNAIL / 4, rel=0.1)


def test_vectors_have_no_sheet():
    study, items = studied(VECTORS)
    with pytest.raises(ValueError, match="needs items that are images, got vectors"):
        contact_sheet(study, items, study.classes[0])

import io
import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from polyanchor.datasets.images import BadImageError, ImageArrays, ImageBytes, ImageFiles, ImageRows


def encoded(image, form="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def test_files_are_read_in_rgb_and_named_by_their_path(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("L", (3, 2), 77).save(tmp_path / "a" / "grey.png")
    files = ImageFiles(tmp_path, ["a/grey.png"])
    assert len(files) == 1
    assert files.name(0) == "a/grey.png"
    image = files.read(0)
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (3, 2), (77, 77, 77))


def test_the_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (4, 2), "black")
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    upright = ImageFiles(tmp_path, ["turned.png"]).read(0)
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == (255, 255, 255)  # the upper left corner went to the upper right


def photo(width, height):
    """Smooth shades and a few edges, as photographs have."""
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    image.paste((200, 40, 10), (width // 5, height // 3, width // 2, height // 2))
    return image


@pytest.mark.parametrize(("allowed", "size"), [(0.3, (203, 151)), (1.9, (203, 151)), (2, (102, 76)), (7, (51, 38))])
def test_a_jpeg_is_decoded_smaller_where_that_is_allowed(allowed, size):
    cells = ImageBytes([encoded(photo(203, 151), "JPEG", quality=90)], ["x"])
    told = []

    def look(width, height):
        told.append((width, height))
        return allowed

    image = cells.read(0, look)
    assert (image.mode, image.size, told) == ("RGB", size, [(203, 151)])
    shrunk = cells.read(0).resize(size, Image.Resampling.BOX)
    apart = np.abs(np.asarray(image).astype(int) - np.asarray(shrunk))
    assert apart.mean() < 2  # of 255


def test_a_look_sees_the_upright_image():
    exif = Image.Exif()
    exif[0x0112] = 6
    told = []
    for form in ("JPEG", "PNG"):
        cells = ImageBytes([encoded(photo(80, 40), form, exif=exif)], ["x"])
        image = cells.read(0, lambda width, height: told.append((width, height)) or 2.5)
        assert image.size == ((20, 40) if form == "JPEG" else (40, 80))
    assert told == [(40, 80)] * 2


def test_a_look_at_other_sources():
    told = []
    arrays = ImageRows(ImageArrays(np.zeros((1, 6, 9, 3), dtype=np.uint8), ["a"]), torch.tensor([0]))
    assert arrays.read(0, lambda width, height: told.append((width, height)) or 4.0).size == (9, 6)
    grey = ImageBytes([encoded(photo(64, 32).convert("L"), "JPEG")], ["grey"])
    assert (grey.read(0, lambda width, height: 99.0).size, grey.read(0).mode) == ((8, 4), "RGB")
    assert told == [(9, 6)]


def test_sixteen_bit_shades_survive():
    shades = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    image = ImageBytes([encoded(Image.fromarray(shades))], ["x"]).read(0)
    assert np.asarray(image)[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.filterwarnings("error")
def test_a_palette_with_transparency_gives_no_warning():
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 9, 8, 7] + [0] * 762)
    cell = encoded(image, transparency=bytes([0, 255]))
    assert ImageBytes([cell], ["x"]).read(0).getpixel((0, 0)) == (9, 8, 7)


def test_arrow_cells_are_read_one_at_a_time():
    cells = pa.chunked_array([[encoded(Image.new("RGB", (2, 2), (c, 0, 0)))] for c in (1, 2)])
    images = ImageBytes(cells, ["a", "b"])
    assert images.cells is cells
    assert images.read(1).getpixel((0, 0)) == (2, 0, 0)
    with pytest.raises(ValueError, match="one name per image, got 1 for 2"):
        ImageBytes(cells, ["a"])


def test_an_empty_cell_is_a_bad_image():
    with pytest.raises(BadImageError, match="a cannot be read: the table holds no bytes"):
        ImageBytes(pa.array([None], pa.binary()), ["a"]).read(0)


def test_arrays_grey_and_coloured():
    grey = ImageArrays(np.full((1, 2, 3), 5, dtype=np.uint8), ["g"])
    assert (grey.read(0).size, grey.read(0).getpixel((2, 1)), grey.name(0)) == ((3, 2), (5, 5, 5), "g")
    assert ImageArrays(np.full((1, 2, 2, 3), 6, dtype=np.uint8), ["c"]).read(0).getpixel((0, 0)) == (6, 6, 6)
    with pytest.raises(ValueError, match=r"must be uint8 .* got float64 \(1, 2, 2\)"):
        ImageArrays(np.zeros((1, 2, 2)), ["x"])
    with pytest.raises(ValueError, match="got 2 for 1 images"):
        ImageArrays(np.zeros((1, 2, 2), dtype=np.uint8), ["x", "y"])


def test_rows_of_rows_are_one_step_from_the_image(tmp_path):
    files = ImageFiles(tmp_path, ["0", "1", "2", "3"])
    rows = ImageRows(ImageRows(files, torch.tensor([3, 1, 0])), torch.tensor([2, 0]))
    assert [rows.name(0), rows.name(1)] == ["0", "3"]
    assert rows.images is files
    assert len(rows) == 2


@pytest.mark.parametrize("content", [b"", b"no image at all", "cut", "cut jpeg"])
def test_a_broken_file_names_itself_and_says_what_to_do(tmp_path, content):
    if isinstance(content, str):
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
        content = encoded(noise, "JPEG" if "jpeg" in content else "PNG")[:-500]
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(BadImageError) as caught:
        ImageFiles(tmp_path, ["bad.png"]).read(0)
    assert caught.value.name == "bad.png"
    assert str(caught.value).startswith("bad.png cannot be read: ")
    assert "--on-bad-image skip" in str(caught.value)
    assert "0x" not in str(caught.value)


def test_a_missing_file_is_a_bad_image(tmp_path):
    with pytest.raises(BadImageError, match=r"^gone\.png cannot be read: the file is missing"):
        ImageFiles(tmp_path, ["gone.png"]).read(0)


def test_the_error_survives_pickling_and_the_text_a_worker_sends():
    error = BadImageError.of("a/b c.png", "truncated: at byte 3")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.name) == (str(error), "a/b c.png")
    traceback = "Caught BadImageError in worker 0.\nOriginal Traceback:\n  File x\n"
    text = f"{traceback}polyanchor.datasets.images.BadImageError: {error}\n"
    assert str(BadImageError(text)) == str(error)

"""Every mode against what its values mean, computed by hand or by numpy."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from polyanchor.datasets.images import BadImageError, ImageBytes, is_turned, orientation, rgb, upright_rgb


def shown(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return np.asarray(ImageBytes([stream.getvalue()], ["x"]).read(0))


def grey(values, dtype):
    return Image.fromarray(np.array([values], dtype=dtype))


@pytest.mark.parametrize("form", ["TIFF", "PPM"])
def test_floats_of_0_to_1_are_multiplied(form):
    shades = np.random.default_rng(0).random((24, 24), dtype=np.float32)
    got = shown(Image.fromarray(shades), form)
    assert np.array_equal(got[..., 1], np.rint(255 * shades))
    assert np.array_equal(got[..., 0], got[..., 2])


def test_floats_of_0_to_255_and_wide_integers_are_as_those_of_eight_bits():
    shades = np.random.default_rng(0).integers(0, 256, (24, 24))
    for dtype in ("float32", "int32"):
        assert np.array_equal(shown(Image.fromarray(shades.astype(dtype)), "TIFF")[..., 0], shades)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0, 1.02], "between 0 and 1.02"),  # 0..1 enlarged with a filter that overshoots: black as shades of 255
        ([-0.1, 1], "between -0.1 and 1,"),
        ([0, 4000], "between 0 and 4000"),
        ([0, np.nan], "between nan and nan"),
        ([0, np.inf], "between 0 and inf"),
    ],
)
def test_floats_of_no_known_range_are_an_error_that_names_the_image(values, said):
    with pytest.raises(BadImageError, match=rf"^x cannot be read: its values \(mode F\) lie {said}"):
        shown(grey(values, "float32"), "TIFF")


@pytest.mark.parametrize("values", [[-1, 3], [0, 65536]])
def test_integers_of_no_known_range_are_an_error(values):
    with pytest.raises(
        BadImageError, match=rf"^x cannot be read: its values \(mode I\) .* {values[0]} and {values[1]}"
    ):
        shown(grey(values, "int32"), "TIFF")


def test_integers_of_sixteen_bits_in_thirty_two():
    assert shown(grey([0, 257 * 100, 65535], "int32"), "TIFF")[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_a_dark_image_of_sixteen_bits_stays_dark(form):
    assert shown(grey([0, 255, 200], "uint16"), form).max() == 0


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_sixteen_bits_in_any_order_of_bytes(mode):
    image = Image.frombytes(mode, (2, 1), np.array([257 * 77, 65535], ">u2" if mode == "I;16B" else "<u2").tobytes())
    assert np.asarray(rgb(image))[0, :, 0].tolist() == [77, 255]


def test_twelve_bits():
    """A strip of two pixels, 0xFFF and 0x800, written by hand: Pillow writes no such files."""
    head = b"II*\0\x08\0\0\0"
    tags = [(256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 200)]
    tags += [(277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 1, 3)]
    listed = b"".join(
        tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + n.to_bytes(4, "little") + value.to_bytes(4, "little")
        for tag, kind, n, value in tags
    )
    content = (head + len(tags).to_bytes(2, "little") + listed + bytes(4)).ljust(200, b"\0") + b"\xff\xf8\x00"
    assert np.asarray(ImageBytes([content], ["x"]).read(0))[0, :, 0].tolist() == [255, 128]


RED = (200, 30, 60)


def of_red(mode):
    image = Image.new("RGB", (2, 2), RED)
    if mode == "LAB":
        to = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        return ImageCms.applyTransform(image, to)
    if mode == "PA":
        return image.convert("P", palette=Image.Palette.ADAPTIVE).convert("PA")
    return image.convert("RGBA").convert("RGBa") if mode == "RGBa" else image.convert(mode)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "PA"])
def test_modes_of_colour(mode):
    image = of_red(mode)
    assert image.mode == mode
    assert np.abs(np.asarray(rgb(image)).astype(int) - RED).max() <= 3


@pytest.mark.filterwarnings("error")
def test_modes_of_grey_and_transparency():
    half = Image.new("LA", (1, 1), (200, 128))
    assert rgb(half).getpixel((0, 0)) == (200,) * 3
    assert abs(rgb(half.convert("La")).getpixel((0, 0))[0] - 200) <= 1
    assert abs(rgb(half.convert("RGBA").convert("RGBa")).getpixel((0, 0))[0] - 200) <= 1
    assert rgb(Image.new("1", (1, 1), 1)).getpixel((0, 0)) == (255,) * 3
    for transparency in (1, bytes([0, 255])):
        palette = Image.new("P", (1, 1), 1)
        palette.putpalette([0, 0, 0, 9, 8, 7])
        palette.info["transparency"] = transparency
        assert rgb(palette).getpixel((0, 0)) == (9, 8, 7)


def test_what_is_rgb_already_is_not_copied():
    image = Image.new("RGB", (1, 1))
    assert rgb(image) is image


def test_every_orientation_is_turned_as_pillow_turns_it():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    for number in range(10):
        image = Image.fromarray(pixels)
        image.getexif()[0x0112] = number
        upright = ImageOps.exif_transpose(image)
        assert np.array_equal(np.asarray(upright_rgb(image)), np.asarray(upright))
        assert is_turned(image) == (upright.size == (3, 5))


@pytest.mark.parametrize(
    "broken", [b"Exif\0\0", b"Exif\0\0MM\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\0\x08\0\x02\x01\x12"]
)
def test_a_broken_orientation_is_none(broken):
    image = Image.new("RGB", (1, 1))
    image.info["exif"] = broken
    assert orientation(image) == 1

"""From the pixels of any of Pillow's modes to upright RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polyanchor._errors import InputError
from polyanchor._extras import load

if TYPE_CHECKING:
    from PIL.Image import Image

_ORIENTATION, _BITS = 0x0112, 258  # tags of EXIF and of TIFF
_TURNED = (5, 6, 7, 8)  # orientations that exchange width and height
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}


def orientation(image: Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or the metadata are broken."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception:  # broken metadata make Pillow raise nearly anything, and the pixels are not to blame
        return 1
    return found if found in range(1, 9) else 1


def is_turned(image: Image) -> bool:
    """Whether width and height change places in the upright image."""
    return orientation(image) in _TURNED


def upright_rgb(image: Image) -> Image:
    """A decoded image in RGB, turned as its EXIF orientation says; the same object if it is that already."""
    turn = load("PIL.Image", "train").Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    seen, number = rgb(image), orientation(image)
    return seen.transpose(turns[number]) if number in turns else seen


def rgb(image: Image) -> Image:
    """Convert to RGB. Transparency is dropped.

    Shades of 16 bits (modes ``I;16``, ``I;16B`` ..., and ``I`` from PNG, PPM and 16-bit TIFF) are divided by 257, those
    of 12 bits by 16. Other integers (``I``) are shades of 8 bits if all lie in 0..255, else of 16 bits if all lie in
    0..65535. Floats (``F``) are multiplied by 255 if all lie in 0..1, else they are shades of 8 bits if all lie in
    0..255 and the highest is 2 or more: what goes a little beyond 1 would be black as such.

    Raises:
        InputError: the values lie in none of these ranges.

    Example:
        >>> from PIL import Image
        >>> rgb(Image.new("F", (1, 1), 0.5)).getpixel((0, 0)), rgb(Image.new("I", (1, 1), 200)).getpixel((0, 0))
        ((128, 128, 128), (200, 200, 200))
    """
    if image.mode == "F" or image.mode.startswith("I"):  # Pillow would cut off at 255, or take 0..1 for black
        shades = _of_floats(image) if image.mode == "F" else _of_integers(image)
        image = load("PIL.Image", "train").fromarray(shades.astype("uint8"))
    if image.mode == "P" and "transparency" in image.info:  # Pillow would warn
        image = image.convert("RGBA")
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    return image if image.mode == "RGB" else image.convert("RGB")  # which would be a copy


def _of_integers(image: Image) -> Any:
    values = load("numpy", "train").asarray(image)
    bits = getattr(image, "tag_v2", {}).get(_BITS, (0,))[0]
    if bits == 12:
        return values // 16
    if image.mode.startswith("I;16"):
        return values // 257
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise InputError(
            f"its values (mode I) lie between {low} and {high}, expected 0 to 255 or 0 to 65535; save it with 8 or "
            "16 bits"
        )
    return values // 257 if high > 255 or bits == 16 or image.format in ("PNG", "PPM") else values


def _of_floats(image: Image) -> Any:
    values = load("numpy", "train").asarray(image)
    low, high = float(values.min()), float(values.max())  # NaN if one of them is
    if low >= 0 and high <= 1:
        return (255 * values).round()
    if low >= 0 and 2 <= high <= 255:
        return values.round()
    raise InputError(
        f"its values (mode F) lie between {low:g} and {high:g}, expected 0 to 1 or 0 to 255; save it with 8 or 16 bits"
    )

"""Broken metadata are made by hand, chunk by chunk; the pixels must be those of the image without them."""

import io
import os
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from polyanchor.datasets.images import (
    MAX_PIXELS,
    BadImageError,
    ImageBytes,
    ImageFiles,
    limited,
    look_at_head,
    with_opened,
)

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)


def encoded(form, image=None, **options):
    stream = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(stream, form, **options)
    return stream.getvalue()


PNG, JPEG = encoded("PNG"), encoded("JPEG")
WEBP = encoded("WEBP", lossless=True, exif=b"Exif\0\0ab", icc_profile=b"no profile", xmp=b"\xff\xfe")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(kind, data, *, before=True):
    at = 33 if before else len(PNG) - 12  # after the header, or before the end
    return PNG[:at] + chunk(kind, data) + PNG[at:]


def jpeg(marker, data):
    return JPEG[:2] + b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data + JPEG[2:]


BOMB = zlib.compress(bytes(3_000_000))
BROKEN_EXIF = {
    "none": b"",
    "short": b"MM",
    "cut": b"MM\0*\0\0\0\x08\0\x05",
    "no tiff": b"\0\x08\0\x02\x01\x12\0\x03",
    "far": b"II*\0\xff\xff\xff\x7f",
    "a text": b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04abc\0\0\0\0\0",
}
BROKEN_CHUNKS = {
    "profile, method": (b"iCCP", b"x\0\x05abc"),
    "profile, cut": (b"iCCP", b"x\0"),
    "profile, none": (b"iCCP", b""),
    "profile, large": (b"iCCP", b"x\0\0" + BOMB),
    "text, large": (b"zTXt", b"k\0\0" + BOMB),
    "text, method": (b"zTXt", b"k\0\x09abc"),
    "text, international": (b"iTXt", b"k\0\1\0\0\0" + BOMB),
    "raw profile": (b"tEXt", b"Raw profile type exif\0\nexif\n   9\nzz zz\n"),
    "raw profile, cut": (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  9\n4d4")),
    "gamma": (b"gAMA", b"\1"),
    "size": (b"pHYs", b"\1"),
    "frames": (b"acTL", b"\1"),
}
BROKEN = {f"PNG {where} {name}": png(b"eXIf", exif, before=where == "before") for name, exif in BROKEN_EXIF.items()
          for where in ("before", "after")}  # fmt: skip
BROKEN |= {f"PNG {where} {name}": png(*parts, before=where == "before") for name, parts in BROKEN_CHUNKS.items()
           for where in ("before", "after")}  # fmt: skip
BROKEN |= {f"JPEG {name}": encoded("JPEG", exif=b"Exif\0\0" + exif) for name, exif in BROKEN_EXIF.items()}
BROKEN |= {f"WEBP {name}": encoded("WEBP", lossless=True, exif=exif) for name, exif in BROKEN_EXIF.items() if exif}
BROKEN |= {
    "JPEG profile": jpeg(0xE2, b"ICC_PROFILE\0"),
    "JPEG Adobe": jpeg(0xEE, b"Adobe"),
    "JPEG JFIF": jpeg(0xE0, b"JFIF"),
    "JPEG frames": jpeg(0xE2, b"MPF\0junk"),
    "JPEG Photoshop": jpeg(0xED, b"Photoshop 3.0\0008BIM\x03"),
    "PNG text, checksum": PNG[:33] + chunk(b"tEXt", b"k\0abc")[:-1] + b"?" + PNG[33:],
    "WEBP all three": WEBP,
    "WEBP cut within EXIF": WEBP[: WEBP.index(b"EXIF") + 10],
    "WEBP length of EXIF": WEBP.replace(b"EXIF" + struct.pack("<I", 8), b"EXIF" + struct.pack("<I", 9999)),
}


assert all(name.startswith(("PNG", "JPEG", "WEBP")) for name in BROKEN)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of metadata broken on purpose
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_metadata_never_cost_an_image(subtests, tmp_path, form):
    truth = PIXELS if form != "JPEG" else np.asarray(Image.open(io.BytesIO(JPEG)))
    for name, content in BROKEN.items():
        if name.startswith(form):
            with subtests.test(name):
                (tmp_path / "x").write_bytes(content)
                for images in (ImageBytes([content], ["x"]), ImageFiles(tmp_path, ["x"])):
                    look_at_head(images, 0)
                    assert np.array_equal(np.asarray(images.read(0)), truth)


def test_a_good_orientation_beside_a_broken_chunk_counts():
    exif = Image.Exif()
    exif[0x0112] = 6
    for good, at, broken in (
        (encoded("PNG", exif=exif), 33, chunk(b"gAMA", b"")),
        (encoded("JPEG", exif=exif), 2, b"\xff\xee\0\x07Adobe"),
    ):
        cell = good[:at] + broken + good[at:]
        truth = ImageOps.exif_transpose(Image.open(io.BytesIO(good)))
        assert np.array_equal(np.asarray(ImageBytes([cell], ["x"]).read(0)), np.asarray(truth))


def test_broken_pixels_do(subtests):
    for content in (PNG[:-300], JPEG[:-300], WEBP[:900], b"RIFF....WEBP", PNG[:20], b"\xff\xd8\xff\xe0"):
        with subtests.test(repr(content[:20])), pytest.raises(BadImageError):
            ImageBytes([content], ["x"]).read(0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_or_a_device_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    images = ImageFiles(tmp_path, ["pipe.png", "link.png", "/dev/zero", "folder.png"])
    for row in range(4):
        for reads in (images.read, lambda row: look_at_head(images, row)):
            with pytest.raises(BadImageError, match=f"^{images.name(row)} cannot be read: not a regular file"):
                reads(row)


@pytest.mark.parametrize(
    ("form", "content"),
    [("MPEG", b"\0\0\1\xb3\1\xe0\x14\x13" + bytes(40)), ("HDF5", b"\x89HDF\r\n\x1a\n" + bytes(40))],
)
def test_what_is_opened_and_never_decoded_is_known_by_its_head(form, content):
    with pytest.raises(BadImageError, match=f"^x cannot be read: {form} is a format that is not read"):
        look_at_head(ImageBytes([content], ["x"]), 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_the_limit_of_pixels_can_be_set(tmp_path, monkeypatch, form):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # of its own accord Pillow warns from here, and refuses 1,000
    monkeypatch.setattr("polyanchor.datasets.images._LARGE", 500)
    (tmp_path / "x").write_bytes(encoded(form))
    images = ImageFiles(tmp_path, ["x"])
    assert images.read(0).size == (30, 40)
    assert limited(images, 1200).read(0).size == (30, 40)
    for reads in (lambda few: few.read(0), lambda few: look_at_head(few, 0)):
        with pytest.raises(
            BadImageError, match=r"^x cannot be read: it has 1,200 pixels, and data\.max_pixels allows 1,199"
        ):
            reads(limited(images, 1199))
    assert Image.MAX_IMAGE_PIXELS == 500
    assert images.max_pixels == MAX_PIXELS == 178_956_970


def test_pillows_own_limit_is_put_back_whatever_the_threads_do(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)

    def work(count):
        for _ in range(count):
            with_opened(io.BytesIO(PNG), lambda image: image.size)

    threads = [threading.Thread(target=work, args=(50,)) for _ in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert Image.MAX_IMAGE_PIXELS == 500
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(PNG))

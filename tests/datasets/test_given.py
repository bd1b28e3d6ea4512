"""Names and kinds; the pixels are tested in deploy/test_embedder.py."""

import io
import tarfile
import threading
import time

import numpy as np
import pytest
from PIL import Image

from polyanchor.datasets.images import BadImageError, decoded, in_threads
from polyanchor.datasets.loading import MixedImages
from polyanchor.datasets.transforms import test_transform as whole_transform


def test_names(photos):
    file = photos / "class0" / "0.png"
    images = MixedImages([file, str(file), Image.open(file), Image.new("L", (2, 2))])
    assert [images.name(row) for row in range(len(images))] == [str(file)] * 3 + ["image 3"]


def test_every_mode_becomes_rgb_and_is_looked_at_once():
    deep = Image.fromarray(np.full((3, 5), 40_000, dtype="uint16"))
    images = MixedImages([Image.new("1", (5, 3)), Image.new("RGBA", (5, 3)), Image.new("CMYK", (5, 3)), deep])
    for row in range(4):
        seen = []
        assert images.read(row, lambda *size, seen=seen: seen.append(size) or 1.0).mode == "RGB"
        assert seen == [(5, 3)]
    assert images.read(3).getpixel((0, 0)) == (155,) * 3  # not cut off at 255


def test_the_kinds():
    with pytest.raises(TypeError, match="got int at place 1"):
        MixedImages(["a.png", 3])


class Watch:
    """Counts how many threads are inside of an image's ``load`` at once; each stays long enough to be met."""

    def __init__(self):
        self.inside, self.most, self.lock = 0, 0, threading.Lock()

    def over(self, image):
        load = image.load

        def slow():
            with self.lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
            time.sleep(0.005)
            pixels = load()
            with self.lock:
                self.inside -= 1
            return pixels

        image.load = slow
        return image


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_an_image_given_many_times_is_decoded_by_one_thread(tmp_path, form, threads):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8))
    noise.save(tmp_path / "noise", form)
    watch = Watch()
    lazy = watch.over(Image.open(tmp_path / "noise"))
    whole = whole_transform(size=300, resize=300, mean=(0, 0, 0), std=(1, 1, 1))
    got, errors = decoded(MixedImages([lazy] * 32), whole, range(32), [0] * 32, threads=threads)
    assert errors == [None] * 32
    assert watch.most == 1
    truth = np.asarray(Image.open(tmp_path / "noise")).transpose(2, 0, 1) / np.float32(255)
    assert all(np.allclose(image, truth, atol=1e-6) for image in got)


def test_images_of_one_archive_share_its_stream(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (24, 90, 90, 3), dtype=np.uint8)
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        for pixels in noise:
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "PNG")
            entry = tarfile.TarInfo("image")
            entry.size = content.tell()
            archive.addfile(entry, io.BytesIO(content.getvalue()))
    watch = Watch()
    with tarfile.open(tmp_path / "all.tar") as archive:
        images = MixedImages([watch.over(Image.open(archive.extractfile(entry))) for entry in archive])
        seen = in_threads(lambda row: np.asarray(images.read(row)), range(24), threads=3)
    assert watch.most == 1
    assert np.array_equal(np.stack(seen), noise)


def test_the_given_image_is_not_handed_out():
    given = Image.new("RGB", (2, 2))
    MixedImages([given]).read(0).putpixel((0, 0), (9, 9, 9))
    assert given.getpixel((0, 0)) == (0, 0, 0)


def test_a_given_image_that_cannot_be_shown_is_named():
    with pytest.raises(BadImageError, match=r"^image 0 cannot be read: its values \(mode F\) lie between 0 and 300"):
        MixedImages([Image.fromarray(np.array([[0, 300]], dtype=np.float32))]).read(0)

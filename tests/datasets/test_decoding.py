import threading

import numpy as np
import pytest
import torch
from PIL import Image

from polyanchor.datasets.images import BadImageError, ImageArrays, ImageFiles, decoded, in_threads
from polyanchor.datasets.transforms import train_transform

STATISTICS = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.25, 2.0)}


@pytest.fixture
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 24, 3), dtype=np.uint8)
    return ImageArrays(pixels, [str(n) for n in range(20)])


def one_by_one(images, transform, rows, seeds):
    """What the transform makes of each image with torch's own generator set to its seed."""
    made = []
    for row, seed in zip(rows, seeds, strict=True):
        torch.manual_seed(seed)
        made.append(transform(images.read(row)))
    return torch.stack(made)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("kind", ["random-crop", "random-resized-crop"])
def test_threads_and_company_change_nothing(images, kind, threads):
    transform = train_transform(size=16, resize=20, kind=kind, **STATISTICS)
    rows, seeds = [*range(19, -1, -1), 3, 3], [*range(100, 120), 7, 8]
    got, errors = decoded(images, transform, rows, seeds, threads=threads)
    assert errors == [None] * 22
    assert torch.equal(got, one_by_one(images, transform, rows, seeds))
    assert not torch.equal(got[-2], got[-1])  # one image, two seeds


def test_the_batch_is_channels_last_and_normalised_per_colour():
    red = ImageArrays(np.full((2, 8, 8, 3), (255, 0, 51), dtype=np.uint8), ["a", "b"])
    got, _ = decoded(red, train_transform(size=4, resize=4, **STATISTICS), [0, 1], [0, 0], threads=1)
    assert (got.shape, got.dtype) == ((2, 3, 4, 4), torch.float32)
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got[1, :, 2, 2], torch.tensor([(1 - 0.1) / 0.5, (0 - 0.2) / 0.25, (0.2 - 0.3) / 2]))


def test_torchs_generator_is_left_alone(images):
    before = torch.get_rng_state()
    decoded(images, train_transform(size=8, resize=8, **STATISTICS), [0, 1], [5, 6], threads=2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_bad_image_has_no_row_and_keeps_its_place_among_the_errors(tmp_path, threads):
    for name, colour in (("a", 10), ("c", 30)):
        Image.new("RGB", (9, 9), (colour,) * 3).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    files = ImageFiles(tmp_path, ["a.png", "b.png", "c.png"])
    plain = train_transform(size=4, resize=4, mean=(0, 0, 0), std=(1, 1, 1))
    got, errors = decoded(files, plain, [2, 1, 0], [0, 0, 0], threads=threads)
    torch.testing.assert_close(got[:, 0, 0, 0] * 255, torch.tensor([30.0, 10.0]))
    assert [type(error) for error in errors] == [type(None), BadImageError, type(None)]
    assert errors[1].name == "b.png"


def test_a_jpeg_comes_smaller_only_as_far_as_the_cut_allows(tmp_path):
    Image.linear_gradient("L").resize((640, 480)).convert("RGB").save(tmp_path / "a.jpg")
    sizes = []

    class Watched(ImageFiles):
        def read(self, row, look=None):
            image = super().read(row, look)
            sizes.append(image.size)
            return image

    for side in (480, 240, 230, 100, 50):
        turn = train_transform(size=side, resize=side, kind="random-crop", flip=False, **STATISTICS)
        decoded(Watched(tmp_path, ["a.jpg"]), turn, [0], [0], threads=1)
    assert sizes == [(640, 480), (320, 240), (320, 240), (160, 120), (80, 60)]


def test_the_order_is_kept_and_the_work_divided():
    seen = set()
    both = threading.Barrier(2, timeout=10)

    def note(value):
        if value in (0, 8):  # the first of two chunks: neither goes on before the other is there
            both.wait()
        seen.add(threading.get_ident())
        return value + 1

    assert in_threads(note, range(30), threads=2) == list(range(1, 31))
    assert len(seen) == 2
    assert in_threads(lambda value: threading.get_ident(), [1, 2], threads=1) == [threading.get_ident()] * 2


def test_a_number_of_threads_is_needed(images):
    with pytest.raises(ValueError, match="threads"):
        decoded(images, train_transform(size=8, resize=8, **STATISTICS), [0], [0], threads=0)

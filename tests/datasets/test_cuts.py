"""Cuts against torchvision: the same pixels where nothing is drawn, the same distribution where something is."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from polyanchor.datasets.transforms import Cut, center_crop, random_crop, random_resized_crop


def noise(width, height, grain=4):
    """Shades without any pattern that a wrong box could hide in, in blurred patches of ``grain`` pixels."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (height // grain, width // grain, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("aspect", ["keep", "squeeze"])
def test_the_middle_is_torchvisions(subtests, aspect):
    for size in ((97, 64), (64, 97), (300, 211), (40, 40)):
        with subtests.test(size=size):
            image = noise(*size)
            there = tv.center_crop(tv.resize(image, [48, 48] if aspect == "squeeze" else [48]), [41, 41])
            ours = center_crop(*size, size=41, resize=48, aspect=aspect).pixels(image)
            apart = np.abs(ours.astype(int) - np.asarray(there))
            assert apart.max() <= 2  # the filter's weights are rounded, and may round the other way: once a direction
            assert apart.mean() < 0.5


@pytest.mark.parametrize("aspect", ["keep", "squeeze"])
def test_anywhere_is_a_whole_pixel_cut_of_the_resized_image(aspect):
    image = noise(100, 70)
    wide, high = (40, 40) if aspect == "squeeze" else (57, 40)
    resized = np.asarray(image.resize((wide, high), Image.Resampling.BILINEAR)).astype(int)
    corners = set()
    for seed in range(60):
        cut = random_crop(100, 70, generator(seed), size=32, resize=40, aspect=aspect, flip=False)
        x, y = round(cut.box[0] * wide / 100), round(cut.box[1] * high / 70)
        assert np.abs(cut.pixels(image) - resized[y : y + 32, x : x + 32]).max() <= 1
        corners.add((x, y))
    assert {0, high - 32} <= {y for _, y in corners}  # up to both ends
    assert max(x for x, _ in corners) <= wide - 32
    assert len(corners) > 40


def test_mirrored_pixels_run_backwards():
    image = noise(50, 50)
    plain, mirrored = (Cut((50, 50), (3, 4, 40, 45), 16, flip).pixels(image) for flip in (False, True))
    assert np.array_equal(plain[:, ::-1], mirrored)


def test_a_stretched_cut_is_torchvisions_but_for_its_rim():
    """Torchvision cuts first and resizes then, so at the rim it sees nothing from outside."""
    image = noise(120, 90)
    cut = random_resized_crop(120, 90, generator(3), size=32, scale=(0.2, 0.8), flip=False)
    left, upper, right, lower = cut.box
    there = np.asarray(tv.resized_crop(image, int(upper), int(left), int(lower - upper), int(right - left), [32, 32]))
    apart = np.abs(cut.pixels(image).astype(int) - there)
    assert apart[2:-2, 2:-2].max() <= 1
    assert apart.mean() < 2


def test_stretched_cuts_are_distributed_as_torchvisions():
    """Shares, shapes and places of 4,000 cuts each: largest distance of the two distribution functions."""
    width, height, many = 160, 120, 4_000
    ours = []
    drawing = generator(0)
    for _ in range(many):
        left, upper, right, lower = random_resized_crop(width, height, drawing, size=8, scale=(0.08, 1), flip=False).box
        ours.append((upper, left, lower - upper, right - left))
    torch.manual_seed(0)
    drawn = v2.RandomResizedCrop(8, scale=(0.08, 1), antialias=True)
    image = Image.new("RGB", (width, height))
    theirs = [
        [made[key] for key in ("top", "left", "height", "width")]
        for made in (drawn.make_params([image]) for _ in range(many))
    ]
    facts = [
        np.array([(t, x, h * w, math.log(w / h)) for t, x, h, w in found], dtype=float) for found in (ours, theirs)
    ]
    for one, other in zip(facts[0].T, facts[1].T, strict=True):
        grid = np.concatenate([one, other])
        shares = [np.searchsorted(np.sort(values), grid, side="right") / many for values in (one, other)]
        assert np.abs(shares[0] - shares[1]).max() < 0.044  # Kolmogorov-Smirnov, p about 0.001


@pytest.mark.parametrize(("size", "box"), [((300, 20), (137, 0, 164, 20)), ((20, 300), (0, 137, 20, 164))])
def test_an_image_too_narrow_for_every_shape_is_cut_in_its_middle(size, box):
    got = random_resized_crop(*size, generator(0), size=8, scale=(0.9, 1.0), flip=False).box
    assert got == pytest.approx(box, abs=1)


def test_the_reduction_never_enlarges():
    assert Cut((400, 300), (0, 0, 400, 300), 100).reduction == 3
    assert Cut((400, 300), (0, 0, 50, 50), 100).reduction == 1  # a small cut is enlarged anyway


def test_an_image_decoded_smaller_gives_nearly_the_same_square():
    image = noise(401, 303, grain=12)  # sides that do not halve evenly, as a JPEG of that size
    padded = np.pad(np.asarray(image), ((0, 1), (0, 1), (0, 0)), mode="edge").astype(float)
    halved = padded.reshape(152, 2, 201, 2, 3).mean(axis=(1, 3))  # what a JPEG decoded to a half holds, nearly
    small = Image.fromarray(halved.round().astype(np.uint8))
    for seed in range(10):
        cut = random_resized_crop(401, 303, generator(seed), size=64, scale=(0.5, 1), flip=False)
        assert cut.reduction >= 2
        apart = np.abs(cut.pixels(image).astype(int) - cut.pixels(small))
        assert apart.mean() < 2  # of 255

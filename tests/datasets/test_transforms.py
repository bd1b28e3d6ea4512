import numpy as np
import pytest
import torch
from PIL import Image

from polyanchor.datasets import transforms

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def ramp(width, height):
    """Shades that grow from left to right."""
    row = np.linspace(0, 255, width).astype("uint8")
    return Image.fromarray(np.repeat(row[None], height, axis=0)).convert("RGB")


def test_values_are_normalised_per_colour():
    image = Image.new("RGB", (20, 20), (255, 0, 51))
    turned = transforms.test_transform(size=4, resize=8, mean=MEAN, std=STD)(image)
    assert (turned.shape, turned.dtype) == ((3, 4, 4), torch.float32)
    torch.testing.assert_close(turned[:, 0, 0], torch.tensor([(1 - 0.1) / 0.5, (0 - 0.2) / 0.25, (0.2 - 0.3) / 2]))


def test_the_test_transform_cuts_the_middle():
    # witness: the same steps with PIL alone
    image = ramp(60, 30)
    turned = transforms.test_transform(size=12, resize=20, **PLAIN)(image)
    by_hand = image.resize((40, 20), Image.Resampling.BILINEAR).crop((14, 4, 26, 16))
    assert torch.equal((turned * 255).round().byte(), torch.from_numpy(np.array(by_hand)).permute(2, 0, 1))


def test_squeezing_keeps_the_whole_image_in_sight():
    image = ramp(60, 30)
    turned = transforms.test_transform(size=20, resize=20, aspect="squeeze", **PLAIN)(image)
    by_hand = image.resize((20, 20), Image.Resampling.BILINEAR)
    assert torch.equal((turned * 255).round().byte(), torch.from_numpy(np.array(by_hand)).permute(2, 0, 1))
    turn = transforms.train_transform(size=20, resize=20, kind="random-crop", aspect="squeeze", flip=False, **PLAIN)
    assert torch.equal(turn(image), turned)


@pytest.mark.parametrize("kind", transforms.KINDS)
def test_the_training_transform_is_random_and_keeps_the_size(kind):
    turn = transforms.train_transform(size=16, resize=20, kind=kind, flip=False, **PLAIN)
    torch.manual_seed(0)
    results = [turn(ramp(50, 30)) for _ in range(10)]
    assert all(result.shape == (3, 16, 16) for result in results)
    assert len({result.sum().item() for result in results}) > 5
    torch.manual_seed(0)
    assert torch.equal(turn(ramp(50, 30)), results[0])
    assert all(bool((result.diff(dim=2) >= 0).all()) for result in results)  # left is still left


@pytest.mark.parametrize("kind", transforms.KINDS)
def test_half_of_the_images_are_flipped(kind):
    turn = transforms.train_transform(size=16, resize=20, kind=kind, **PLAIN)
    torch.manual_seed(0)
    flipped = sum(bool((turn(ramp(50, 30)).diff(dim=2) <= 0).all()) for _ in range(60))
    assert 15 < flipped < 45


def test_the_scale_is_the_share_of_the_area():
    # a full-area crop of a square shows nearly the whole ramp, one of 4 % a fifth of it
    spans = {}
    for scale in ((1.0, 1.0), (0.04, 0.04)):
        turn = transforms.train_transform(size=32, resize=32, scale=scale, flip=False, **PLAIN)
        torch.manual_seed(0)
        seen = [turn(ramp(100, 100)) for _ in range(20)]
        spans[scale] = [float(image.max() - image.min()) for image in seen]
    assert min(spans[(1.0, 1.0)]) > 0.8  # the widest shape that fits is 100 x 87
    assert max(spans[(0.04, 0.04)]) < 0.25  # 23 pixels wide at most


def test_errors(subtests):
    for options, message in (
        ({"kind": "random-resize-crop"}, "kind must be one of .* did you mean 'random-resized-crop'"),
        ({"kind": "random-crop", "resize": 8}, "resize must be at least size, got resize 8 for size 16"),
        ({"kind": "random-crop", "aspect": "kep"}, "did you mean 'keep'"),
        ({"scale": (0.5, 0.2)}, "scale must be two shares"),
        ({"scale": (0.0, 1.0)}, "scale must be two shares"),
        ({"mean": (0.5,)}, "mean must hold one number per colour, 3, got 1"),
        ({"std": (1, 0, 1)}, "std must be a finite number above 0"),
        ({"size": 0}, "size must be a finite number above 0"),
    ):
        with subtests.test(message), pytest.raises(ValueError, match=message):
            transforms.train_transform(**{"size": 16, "resize": 20, **PLAIN, **options})


def test_a_cut_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="resize must be at least size"):
        transforms.test_transform(size=224, resize=200, **PLAIN)

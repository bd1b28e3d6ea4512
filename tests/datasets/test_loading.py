import os

import pytest
import torch
from torch.utils.data import DataLoader

from polyanchor.datasets.images import BadImageError, ImageFiles
from polyanchor.datasets.items import Items
from polyanchor.datasets.loading import (
    Batch,
    ItemDataset,
    Skipped,
    collate,
    ignore_sigint,
    ignore_sigint_and_nice,
    listing_digest,
)
from polyanchor.datasets.samplers import ClassBalancedBatches, Row
from polyanchor.datasets.transforms import train_transform

HALF = (0.5, 0.5, 0.5)


def augment():
    return train_transform(size=8, resize=8, mean=HALF, std=HALF)


@pytest.fixture
def items(tmp_path, picture):
    paths = []
    for n in range(8):
        file = picture(tmp_path / f"{n}.png")
        image = file.read_bytes()
        assert image
        paths.append(file.name)
    gradient(tmp_path, paths)
    return Items(ImageFiles(tmp_path, paths), torch.tensor([3, 3, 3, 3, 6, 6, 6, 6]))


def gradient(folder, paths):
    """Give the images something to crop."""
    from PIL import Image

    for path in paths:
        Image.linear_gradient("L").resize((40, 30)).save(folder / path)


@pytest.fixture
def broken(items, tmp_path):
    (tmp_path / "5.png").write_bytes(b"not an image")
    return items


def test_a_sample_is_input_label_row(items):
    image, label, row = ItemDataset(items, augment())[Row(6, epoch=0)]
    assert (image.shape, image.dtype, label, row) == ((3, 8, 8), torch.float32, 6, 6)


def test_augmentation_depends_on_seed_epoch_and_row_alone(items):
    data = ItemDataset(items, augment(), seed=1)
    first = data[Row(3, epoch=2)][0]
    torch.manual_seed(12345)
    data[Row(1, epoch=0)]
    assert torch.equal(data[Row(3, epoch=2)][0], first)
    others = [
        data[Row(3, epoch=3)][0],
        data[Row(4, epoch=2)][0],
        ItemDataset(items, augment(), seed=2)[Row(3, epoch=2)][0],
    ]
    assert not any(torch.equal(first, other) for other in others)
    assert torch.equal(data[3][0], data[Row(3, epoch=0)][0])


def test_the_generator_of_the_program_is_left_alone(items):
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    ItemDataset(items, augment())[Row(0, epoch=0)]
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(items, workers):
    sampler = ClassBalancedBatches(items.labels, classes=2, images=2, seed=0)
    sampler.set_epoch(5)
    data = ItemDataset(items, augment())
    batches = list(DataLoader(data, batch_sampler=sampler, num_workers=workers, collate_fn=collate))
    assert all(isinstance(batch, Batch) for batch in batches)
    for batch in batches:
        for image, label, row in zip(batch.inputs, batch.labels.tolist(), batch.rows.tolist(), strict=True):
            assert label == items.labels[row]
            assert torch.equal(image, data[Row(row, epoch=5)][0])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_stops_the_run_with_its_message_whole(broken, workers):
    loader = DataLoader(ItemDataset(broken, augment()), batch_size=4, num_workers=workers, collate_fn=collate)
    with pytest.raises(BadImageError) as caught:
        list(loader)
    assert str(caught.value).startswith("5.png cannot be read: not an image.")
    assert caught.value.name == "5.png"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_is_skipped_and_counted(broken, workers):
    data = ItemDataset(broken, augment(), on_bad="skip")
    batch = list(DataLoader(data, batch_size=4, num_workers=workers, collate_fn=collate))[1]
    assert batch.skipped == ("5.png",)
    assert (batch.rows.tolist(), batch.labels.tolist(), len(batch.inputs)) == ([4, 6, 7], [6, 6, 6], 3)


def test_a_batch_of_bad_images_has_no_rows():
    batch = collate([Skipped("a"), Skipped("b")])
    assert (len(batch.inputs), len(batch.labels), len(batch.rows), batch.skipped) == (0, 0, 0, ("a", "b"))
    assert batch.labels.dtype == batch.rows.dtype == torch.int64


def test_threads_change_nothing_and_a_transform_of_your_own_goes_item_by_item(items):
    data, keys = ItemDataset(items, augment()), [Row(row, epoch=2) for row in range(8)]
    batch = data.__getitems__(keys)
    assert torch.equal(batch.inputs, torch.stack([data[key][0] for key in keys]))
    assert collate(batch) is batch
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(data.__getitems__(keys).inputs, batch.inputs)
    finally:
        torch.set_num_threads(before)
    noisy = ItemDataset(items, lambda image: torch.rand(2) + image.width)
    assert torch.equal(noisy.__getitems__(keys).inputs, torch.stack([noisy[key][0] for key in keys]))


def test_a_yielding_worker_has_a_lower_priority(items):
    vectors = Items(torch.zeros(2, 1), torch.tensor([0, 1]))
    data = ItemDataset(vectors, lambda vector: torch.tensor([float(os.nice(0))]))
    own = os.nice(0)
    for start, more in ((ignore_sigint, 0), (ignore_sigint_and_nice, 10)):
        batch = next(iter(DataLoader(data, batch_size=2, num_workers=1, collate_fn=collate, worker_init_fn=start)))
        assert batch.inputs[0].item() == min(own + more, 19)


def test_inputs_of_two_shapes():
    with pytest.raises(ValueError, match=r"one shape, got \(2,\), \(3,\)"):
        collate([(torch.zeros(3), 0, 0), (torch.zeros(2), 0, 1)])


def test_vectors_need_no_transform(items):
    vectors = Items(torch.arange(6.0).view(3, 2), torch.tensor([1, 1, 2]))
    batch = collate([ItemDataset(vectors, None)[row] for row in (2, 0)])
    assert (batch.inputs.tolist(), batch.labels.tolist()) == ([[4.0, 5.0], [0.0, 1.0]], [2, 1])
    noisy = ItemDataset(vectors, lambda vector: vector + torch.randn(2))
    assert torch.equal(noisy[Row(0, epoch=1)][0], noisy[Row(0, epoch=1)][0])
    with pytest.raises(ValueError, match="None for vectors only"):
        ItemDataset(items, None)
    with pytest.raises(ValueError, match="on_bad must be one of 'stop', 'skip', got 'skp'; did you mean 'skip'"):
        ItemDataset(items, augment(), on_bad="skp")


def test_the_fingerprint_sees_names_labels_and_order(items, tmp_path):
    whole = listing_digest(items)
    assert len(whole) == 32
    paths = items.inputs.paths
    assert listing_digest(Items(ImageFiles(tmp_path / "elsewhere", paths), items.labels)) == whole
    assert listing_digest(items.subset(torch.arange(8))) == whole
    changed = [
        items.subset(torch.arange(7)),
        items.subset(torch.arange(8).flip(0)),
        Items(items.inputs, items.labels + 1),
        Items(ImageFiles(tmp_path, [*paths[:-1], "x.png"]), items.labels),
    ]
    assert whole not in [listing_digest(other) for other in changed]
    ambiguous = [
        Items(torch.zeros(2, 1), torch.tensor([1, 2]), names=names) for names in (("a2 1 b", "c"), ("a", "2 1 bc"))
    ]
    assert listing_digest(ambiguous[0]) != listing_digest(ambiguous[1])

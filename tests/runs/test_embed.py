"""Embedding keeps order and names; skipped images have no row."""

import numpy as np
import pytest
import torch
from torch import nn

from polyanchor.datasets.images import BadImageError, ImageFiles
from polyanchor.datasets.items import Items
from polyanchor.runs.embed import embed


class Means(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return self.scale * images.mean((2, 3))


def pixels(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


@pytest.fixture
def items(photos):
    paths = [f"class{c}/{i}.png" for c in range(3) for i in range(8)]
    return Items(ImageFiles(photos, paths), torch.arange(3).repeat_interleave(8))


@pytest.mark.parametrize(("batch_size", "workers"), [(5, 0), (24, 0), (7, 2)])
def test_row_by_row_in_order(items, batch_size, workers):
    got, skipped = embed(Means(), items, pixels, batch_size=batch_size, workers=workers)
    want = torch.stack([pixels(items.inputs.read(row)).mean((1, 2)) for row in range(24)])
    torch.testing.assert_close(got.vectors, want)
    assert torch.equal(got.labels, items.labels)
    assert got.names == tuple(items.name(row) for row in range(24))
    assert skipped == ()


def test_a_skipped_image_has_no_row(items, photos):
    (photos / "class1" / "2.png").write_bytes(b"")
    got, skipped = embed(Means(), items, pixels, on_bad="skip", batch_size=4)
    assert len(got.vectors) == len(got.labels) == len(got.names) == 23
    assert len(skipped) == 1
    assert "class1/2.png" in skipped[0]
    assert not any("class1/2.png" in name for name in got.names)
    with pytest.raises(BadImageError, match="class1/2.png"):
        embed(Means(), items, pixels)


def test_nothing_readable(items, photos):
    for path in photos.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 24 images could be read"):
        embed(Means(), items, pixels, on_bad="skip")


def test_the_mode_of_every_module_is_left_as_it_was(items, photos):
    model = nn.Sequential(Means(), nn.BatchNorm1d(3)).train()
    model[1].eval()  # a frozen batch norm
    embed(model, items, pixels)
    assert [module.training for module in model.modules()] == [True, True, False]
    (photos / "class1" / "2.png").write_bytes(b"")
    with pytest.raises(BadImageError):
        embed(model, items, pixels)
    assert [module.training for module in model.modules()] == [True, True, False]


def test_a_model_without_parameters():
    vectors = Items(torch.eye(3), torch.arange(3))
    assert torch.equal(embed(nn.Identity(), vectors, None)[0].vectors, torch.eye(3))

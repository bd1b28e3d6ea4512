import pytest
import torch
from PIL import Image

from polyanchor.datasets.images import BadImageError, ImageFiles
from polyanchor.datasets.items import Items, Split
from polyanchor.distributed.comm import Ranks
from polyanchor.training.train import require_openable


@pytest.fixture
def split(tmp_path):
    """Two images a part, two parts of three in the gallery as well."""
    for number in range(6):
        Image.new("RGB", (5, 4)).save(tmp_path / f"{number}.png")
    files = ImageFiles(tmp_path, [f"{number}.png" for number in range(6)])
    parts = [Items(files, torch.zeros(6, dtype=torch.int64)).subset(torch.tensor([n, n + 1])) for n in (0, 2, 4)]
    return Split("x", parts[0], parts[1], parts[0], validation=parts[2])


def test_whole_images_of_every_part_pass(split):
    require_openable(split)


@pytest.mark.parametrize("row", range(6))
def test_a_bad_one_of_any_part_is_named_before_it_is_decoded(split, tmp_path, row):
    (tmp_path / f"{row}.png").write_bytes(b"no image")
    with pytest.raises(BadImageError) as caught:
        require_openable(split)
    assert caught.value.name == f"{row}.png"
    assert "more" not in str(caught.value)


def test_the_first_is_named_and_the_others_counted(split, tmp_path):
    for number in (1, 2, 5):
        (tmp_path / f"{number}.png").unlink()
    with pytest.raises(
        BadImageError, match=r"^1\.png cannot be read: the file is missing.* 2 more of 6 cannot be opened"
    ):
        require_openable(split)


def test_processes_divide_the_images(split, tmp_path):
    (tmp_path / "1.png").unlink()
    require_openable(split, Ranks(rank=0, size=2))
    with pytest.raises(BadImageError):
        require_openable(split, Ranks(rank=1, size=2))


def test_vectors_have_no_heads():
    items = Items(torch.eye(4), torch.tensor([0, 0, 1, 1]))
    require_openable(Split("x", items, items))

"""Steps in which one rank, or none, has an item: the run of one process, in every precision."""

import json
import math
from itertools import product
from pathlib import Path

import pytest

from polyanchor.config.builders import open_parts
from polyanchor.config.loading import load_config
from polyanchor.runs.folder import RunFolder
from tests.compare import features
from tests.distributed.ranks import on_ranks
from tests.tiny_runs import settings, write_photos

PRECISIONS = {"64-true": 1e-9, "32-true": 1e-3, "bf16-mixed": 0.05}  # -> how far sums in another order may lead
CASES = {
    "one item": ["batches.classes_per_batch=1", "batches.samples_per_class=1"],
    "one item, sharded": ["batches.classes_per_batch=1", "batches.samples_per_class=1", "loss.proxy_sharding=class"],
    "bad images": [
        "batches.classes_per_batch=1",
        "batches.samples_per_class=2",
        "data.on_bad_image=skip",
        "model.freeze_bn=true",
        "optim.warmup_epochs=0",
    ],
}


def run(place, case, precision, size):
    """The row of the one epoch."""
    from polyanchor.training.train import train

    words = [*CASES[case], f"run.precision={precision}", "run.accelerator=cpu", "run.epochs=1", f"run.devices={size}"]
    photos = case == "bad images"
    words = settings(f"{place}/photos", *words) if photos else features.settings(f"{place}/v.safetensors", *words)
    folder = RunFolder(Path(place) / f"{case} {precision} {size}")
    train(load_config(settings=words), folder.path)
    (row,) = json.loads(folder.results.read_text())["epochs"]
    return row


def everything(place):
    return {f"{case}, {precision}": run(place, case, precision, 2) for case, precision in product(CASES, PRECISIONS)}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("ranks")
    features.write(place / "v.safetensors")
    write_photos(place / "photos")
    train = open_parts(load_config(settings=settings(place / "photos"))).train
    names = sorted(train.name(row) for row in range(len(train)))
    for name in names[:8] + names[8::2]:  # all of one class, and half of the other
        (place / "photos" / name).write_bytes(b"not an image")
    return place


@pytest.fixture(scope="module")
def two(place):
    return on_ranks(2, everything, str(place))


@pytest.mark.slow
@pytest.mark.parametrize(("case", "precision"), list(product(CASES, PRECISIONS)))
def test_ranks_without_items_send_what_the_others_send(place, two, case, precision):
    want = run(place, case, precision, 1)
    assert math.isfinite(want["loss"])
    for rank in two:
        assert rank[f"{case}, {precision}"] == pytest.approx(want, rel=PRECISIONS[precision])

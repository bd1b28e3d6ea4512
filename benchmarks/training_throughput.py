"""How many images a second does `polyanchor train` reach, beside a bare loop that has its images decoded already?

Run: python -m benchmarks.training_throughput [--size long]

The configuration is configs/cars196_half_lite0.toml: tf_efficientnet_lite0, 128 px, batch 120, two threads. Its images
are looked for in $POLYANCHOR_DATA/stanford_cars and data/stanford_cars; where they are not, JPEG files of the same
size are made up. The bare loop has the same network, loss, optimizer groups, memory format and allocator setting.
Start, validation and checkpoints are outside of a step; start and end are parts of their own.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, pairwise
from operator import truediv
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, Row, Target, child, main, row, use_threads

QUESTION = "training_throughput"
BARE, TRAIN, BESIDE = "bare loop", "polyanchor train", "polyanchor train, data.workers=1"
LOADER = "its loader alone"
ROUNDS = {"tiny": 1, "short": 2, "long": 7}  # of fresh processes, each of which gives all its steps
STEPS = {"tiny": 2, "short": 6, "long": 8}
WARM_UP = 2  # steps that do not count: the allocator and the kernels' own choices settle
TINY = ["images.size=16", "images.resize=18", "model.backbone=test_resnet", "batches.classes_per_batch=2"]
Parts = dict[str, list[float]]  # seconds of each step, by part; and its images


def rows(size: str) -> list[Row]:
    """Images a second, and where the time of a step goes; a sample is a step."""
    rates: dict[str, list[float]] = {}
    parts: dict[str, list[float]] = {}
    names = [BARE, TRAIN, *([] if size == "short" else [BESIDE]), LOADER]
    with source(size) as (what, settings):
        for turn in range(ROUNDS[size]):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                found: Parts = child("benchmarks.training_throughput", "--one", name, STEPS[size], *settings)
                images = found.pop("images")
                rates.setdefault(name, []).extend(map(truediv, images, found["step"]))
                for part, seconds in found.items():
                    parts.setdefault(f"{name}: {part}", []).extend(seconds)
    rates = {name: rates[name] for name in names}
    case = {"images": what, "B": 8 if size == "tiny" else 120, "pixels": 16 if size == "tiny" else 128}
    aim = Target(TRAIN, 0.95, of=BARE, least=True)
    return [
        row(QUESTION, case, rates, unit="images/s", reference=BARE, targets=[aim]),
        row(QUESTION, case | {"parts": "of a step"}, parts, reference=f"{BARE}: step"),
    ]


@contextmanager
def source(size: str) -> Iterator[tuple[str, list[str]]]:
    """What the images are, and the settings that say where they lie."""
    for place in (os.environ.get("POLYANCHOR_DATA", ""), str(ROOT / "data")):
        if size != "tiny" and place and (Path(place) / "stanford_cars").is_dir():
            yield "Stanford Cars", [f"data.root={place}"]
            return
    with tempfile.TemporaryDirectory() as folder:
        make_up(Path(folder), images=6 if size == "tiny" else 45)
        yield "made up", [f"data.source=folder:{folder}", "data.train_share=0.95", *(TINY if size == "tiny" else [])]


def make_up(folder: Path, images: int) -> None:
    """32 classes of JPEG files of 243 x 128 pixels and about 7 KB, which is what the half of Stanford Cars has."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(32):
        (folder / f"{number:02}").mkdir()
        for image in range(images):
            coarse = Image.fromarray(rng.integers(0, 256, (16, 30, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((243, 128), Image.Resampling.BICUBIC))
            grain = rng.normal(0, 6, (128, 243, 3))
            pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:02}" / f"{image}.jpg", quality=75)


def one(name: str, steps: int, settings: Sequence[str]) -> Parts:
    """Seconds of the steps and of their parts, in this process."""
    from polyanchor.config.loading import load_config

    workers = f"data.workers={int(name == BESIDE)}"
    config = load_config(ROOT / "configs" / "cars196_half_lite0.toml", [*settings, workers, 'model.weights=""'])
    measure = {BARE: bare, LOADER: loader_alone}.get(name, train)
    found = measure(config, WARM_UP + steps)
    return {part: values[WARM_UP:] or values for part, values in found.items()}  # start and end come once


def bare(config: Any, steps: int) -> Parts:
    """Forward, backward and optimizer on batches that are there already, and nothing else."""
    import torch

    from polyanchor.config.builders import make_loss, make_model, open_parts
    from polyanchor.training.module import parameter_groups
    from polyanchor.training.trainer import keep_freed_memory

    keep_freed_memory()
    torch.manual_seed(config.run.seed)
    items = open_parts(config).train
    model, loss = make_model(config, items).train(), make_loss(config, len(items.classes))
    optimizer = torch.optim.AdamW(parameter_groups(model, loss, config))
    batches = [
        (
            batch.inputs.contiguous(memory_format=torch.channels_last),
            torch.searchsorted(items.classes, batch.labels),
        )
        for batch in islice(loader_of(config), 3)
    ]
    found: Parts = {"forward": [], "backward": [], "optimizer": [], "step": [], "images": []}
    for step in range(steps):
        images, labels = batches[step % len(batches)]
        start = time.perf_counter()
        value = loss(model(images), labels)
        forward = time.perf_counter()
        optimizer.zero_grad()
        value.backward()
        backward = time.perf_counter()
        optimizer.step()
        end = time.perf_counter()
        spans = forward - start, backward - forward, end - backward, end - start, len(images)
        for values, span in zip(found.values(), spans, strict=True):
            values.append(span)
    return found


def loader_of(config: Any) -> Any:
    """The loader of the training images, as the trainer has it."""
    from polyanchor.config.builders import make_batches, make_loader, make_model, make_transforms, open_parts

    items = open_parts(config).train
    view, _ = make_transforms(config, make_model(config, items).statistics)
    return make_loader(config, items, view, make_batches(config, items.labels))


def loader_alone(config: Any, steps: int) -> Parts:
    """Reading, decoding, cutting and normalising, and nothing else."""
    found: Parts = {"step": [], "images": []}
    start = time.perf_counter()
    for batch in islice(loader_of(config), steps):
        found["step"].append(time.perf_counter() - start)
        found["images"].append(len(batch.labels))
        start = time.perf_counter()
    return found


def train(config: Any, steps: int) -> Parts:
    """The trainer itself; it looks for a request to stop after every step, which tells when that was."""
    from polyanchor.config.builders import make_batches, open_parts
    from polyanchor.training.stopping import Interrupted, StopRequest
    from polyanchor.training.train import train

    ends: list[float] = []

    class Clock(StopRequest):
        @property
        def made(self) -> bool:
            ends.append(time.perf_counter())
            return len(ends) > steps

        @made.setter
        def made(self, value: bool) -> None:
            """It is a plain attribute there."""

    batches = make_batches(config, open_parts(config).train.labels)
    if steps + 1 >= len(batches):
        raise ValueError(f"{steps} steps and a first one must fit into one epoch, which has {len(batches)}")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            train(config, Path(folder) / "run", stop=Clock())
        except Interrupted:
            stopped = time.perf_counter()
    spans = [end - before for before, end in pairwise(ends)]
    return {
        "step": spans,
        "start and first step": [ends[0] - start],
        "checkpoint and end": [stopped - ends[-1]],
        "images": [batches.size] * len(spans),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        use_threads()
        print(json.dumps(one(sys.argv[2], int(sys.argv[3]), sys.argv[4:])))
    else:
        main(QUESTION, rows, __doc__)

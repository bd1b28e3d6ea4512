"""kill -9 at any moment, while a checkpoint is being written too: what is resumed ends as what was never stopped."""

import multiprocessing
import random
import time
from pathlib import Path

import pytest

from polyanchor.runs.folder import RunFolder
from polyanchor.training.train import train
from tests.compare import features
from tests.training.test_train import same_run

SETTINGS = [
    "run.epochs=6",
    "batches.classes_per_batch=2",
    "batches.samples_per_class=2",
    "run.checkpoint_minutes=0.0001",
]


def slowly(write):
    """A writer that leaves its file half written for a while."""

    def wait(checkpoint, file):
        write(checkpoint, file)
        file.flush()
        size = file.tell()
        file.truncate(size // 2)
        file.flush()
        time.sleep(0.05)
        file.seek(0)
        write(checkpoint, file)

    return wait


def work(vectors, folder):
    """In a process of its own: begin or go on, with checkpoints that are slow to write."""
    import torch

    torch.set_num_threads(1)
    torch.save = slowly(torch.save)
    train(features.config(vectors, *SETTINGS), folder, resume=RunFolder(folder).config.is_file())


def started(vectors, folder):
    context = multiprocessing.get_context("forkserver")  # imports once, forks from a process without threads
    context.set_forkserver_preload(["polyanchor.training.train", "tests.training.test_kill"])
    process = context.Process(target=work, args=(vectors, folder))
    process.start()
    return process


def wait_until(true, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not true() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    vectors, folder = features.write(tmp_path / "v.safetensors"), RunFolder(tmp_path / "killed")
    draw = random.Random(0)
    halves = kills = 0
    while not folder.results.is_file():
        process = started(vectors, folder.path)
        if kills % 2 == 0:  # while a checkpoint is half written
            wait_until(lambda: list(Path(folder.checkpoints).glob("*.writing")), process)
        else:  # anywhere from the first lines to the last, later and later so that the run ends at all
            wait_until(lambda: False, process, seconds=draw.uniform(0, 0.3 * kills))
        process.kill()
        process.join()
        assert process.exitcode in (0, -9)
        halves += bool(list(Path(folder.path).rglob("*.ckpt.*.writing")))
        kills += 1
        assert kills < 60
    assert halves >= 3  # it has been killed inside the writing
    train(features.config(vectors, *SETTINGS), tmp_path / "whole")
    same_run(tmp_path / "whole", folder.path)

"""What happens to a run from outside: a full disk, killed workers, no memory; the messages and what is left."""

import multiprocessing
import os
import re
import signal
from contextlib import contextmanager

import pytest
import torch

from polyanchor._io import JobFailedError
from polyanchor.cli.app import run
from polyanchor.runs.folder import RunFolder, held
from polyanchor.training.callbacks import ShowProgress
from polyanchor.training.launch import explained
from polyanchor.training.resume import damage
from polyanchor.training.train import train
from tests.compare import features
from tests.test__io import limited
from tests.tiny_runs import arguments, config
from tests.training.test_train import same_run

CONSTANT = "optim.schedule=constant"  # the others depend on the number of epochs, which these tests change


@pytest.fixture
def vectors(tmp_path):
    return features.write(tmp_path / "v.safetensors")


def command(*words):
    return ["train", *words]


def settings(vectors, *changes):
    return [f"--{setting}" for setting in features.settings(vectors, *changes)]


@pytest.mark.slow
def test_a_disk_that_fills_up_in_training(vectors, tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    assert run(command(*settings(vectors, CONSTANT, "run.epochs=1"), "--out", str(folder.path))) == 0
    first = folder.last.read_bytes()
    again = ["--resume", str(folder.path), "--run.epochs", "3"]
    with limited(5_000):  # as much as the configuration takes, and less than a checkpoint
        assert run(command(*again)) == 1
    err = capsys.readouterr().err
    said = err[err.rindex("polyanchor: ") :]
    assert (
        "could not be written: File too large; the file that was there before is whole. Make room on that disk" in said
    )
    assert f"go on with: polyanchor train --resume {folder.path}" in said
    assert "Traceback" not in err
    assert folder.last.read_bytes() == first
    assert not list(folder.path.rglob("*.writing"))
    assert run(command(*again)) == 0
    train(features.config(vectors, CONSTANT, "run.epochs=3"), tmp_path / "whole")
    same_run(tmp_path / "whole", folder.path)


def test_a_log_without_room(vectors, tmp_path, monkeypatch):
    def full(*given, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning.fabric.loggers.csv_logs._ExperimentWriter.save", full)
    with pytest.raises(JobFailedError, match=r"a file in .*logs could not be written: No space left .* --resume"):
        train(features.config(vectors), tmp_path / "run")


@pytest.mark.slow
def test_results_without_room(vectors, tmp_path, monkeypatch):
    """The training is over; after making room, --resume has only to measure again."""
    folder = RunFolder(tmp_path / "run")
    with limited(10**6), pytest.MonkeyPatch.context() as patch:
        patch.setattr("polyanchor.training.train.environment", lambda: {"much": "x" * 2_000_000})
        with pytest.raises(JobFailedError, match=r"results.json could not be written: File too large. Make room"):
            train(features.config(vectors), folder.path)
    assert not folder.results.exists()
    train(features.config(vectors), folder.path, resume=True)
    assert folder.results.is_file()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["training", "validating"])
def test_a_worker_that_is_killed(photos, tmp_path, monkeypatch, capsys, moment):
    """No hang, a message, and the resumed run is the whole one."""

    def kill(self, trainer, *given):
        if trainer.current_epoch == 1:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)

    of = ["data.workers=1", "run.epochs=2", "batches.samples_per_class=1"]  # many steps: batches are fetched ahead
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        if moment == "training":
            patch.setattr(ShowProgress, "on_train_batch_start", kill, raising=False)
        else:
            patch.setattr("polyanchor.runs.embed.collate", lambda samples: os.kill(os.getpid(), signal.SIGKILL))
        assert run(command(*arguments(photos, *of), "--out", str(folder))) == 1
    err = capsys.readouterr().err
    assert re.search(
        r"polyanchor: a worker process that reads the images is gone \((DataLoader worker|\[Errno).*\)", err
    )
    assert f"--workers 0 beside --resume; then go on with: polyanchor train --resume {folder}" in err
    assert "Traceback" not in err
    assert run(command("--resume", str(folder), "--data.workers", "0")) == 0
    train(config(photos, *of, "data.workers=0"), tmp_path / "whole")
    same_run(tmp_path / "whole", folder)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_memory_that_runs_out(tmp_path, error):
    said = "memory ran out .* batches.micro_batch_size that fits; then go on with"
    with pytest.raises(JobFailedError, match=said), explained(tmp_path):
        raise error


@pytest.mark.slow
def test_a_worker_that_was_killed_in_the_middle_of_a_batch(tmp_path):
    receiver, sender = multiprocessing.Pipe()
    sender.close()
    with pytest.raises(JobFailedError, match="a worker process that reads the images is gone"), explained(tmp_path):
        receiver.recv()


@pytest.mark.slow
def test_a_worker_that_dies_while_the_death_of_another_is_cleaned_up(photos, tmp_path, monkeypatch):
    """The signal of the second comes between any two instructions, here when the folder is let go."""

    @contextmanager
    def held_until_a_worker_dies(folder):
        with held(folder):
            yield
        raise RuntimeError("DataLoader worker (pid 12345) is killed by signal: Killed. ")

    monkeypatch.setattr("polyanchor.training.train.held", held_until_a_worker_dies)
    with pytest.raises(JobFailedError, match=r"gone \(DataLoader worker .*Killed\)\. .* --resume"):
        train(config(photos, "run.epochs=1"), tmp_path / "run")


def test_a_fault_of_ours_stays_one(tmp_path):
    with pytest.raises(RuntimeError, match="^shapes$"), explained(tmp_path):
        raise RuntimeError("shapes")


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_and_the_run_ends_the_same(vectors, tmp_path):
    train(features.config(vectors, CONSTANT, "run.epochs=3"), tmp_path / "whole")
    folder = RunFolder(tmp_path / "run")
    train(features.config(vectors, CONSTANT, "run.epochs=2"), folder.path)
    folder.last.write_bytes(folder.last.read_bytes()[:-100])
    said = []
    train(features.config(vectors, CONSTANT, "run.epochs=3"), folder.path, resume=True, announce=said.append)
    assert "last.ckpt is damaged" in said[0]
    assert damage(folder.last) is None
    same_run(tmp_path / "whole", folder.path)

"""Processes that a run starts on this machine: what they give back, and how the failure of one becomes one message."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from polyanchor._io import JobFailedError
from polyanchor.config.loading import load_config
from polyanchor.training.launch import _portable, on_devices, process_group
from polyanchor.training.stopping import Interrupted, StopRequest
from tests.compare import features

CONFIG = load_config(settings=["run.devices=2", "run.accelerator=cpu"])


class TwoArgumentsError(Exception):
    """One that cannot be sent as it is."""

    def __init__(self, one, other):
        super().__init__(one)


def work(kind, announce, stop):
    """In each process."""
    with process_group(CONFIG) as ranks:
        if kind == "fine":
            announce(f"rank {ranks.rank} speaks")
            return torch.arange(3), ranks.all_gather_object(ranks.rank), torch.get_num_threads()
        if kind == "waits":
            with stop.listening():
                announce("listening")
                while not ranks.all_max(stop.made)[0]:
                    time.sleep(0.01)
            raise Interrupted
        if ranks.rank == 1:
            if kind == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "aborted":
                os.abort()
            raise ValueError("rank 1 read a bad image")
        dist.barrier()  # for one that never comes
        return None


def run(kind, announce=lambda line: None, stop=None):
    folder = Path("runs/x")
    return on_devices(CONFIG, work, {"kind": kind}, announce=announce, stop=stop or StopRequest(), folder=folder)


@pytest.mark.slow
def test_the_first_speaks_and_its_value_is_returned():
    said = []
    values, ranks, threads = run("fine", said.append)
    assert values.tolist() == [0, 1, 2] and ranks == [0, 1] and threads >= 1
    assert said == ["rank 0 speaks"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("wrong", ValueError, "^rank 1 read a bad image$"),
        ("killed", JobFailedError, r"process 1 of the run was killed \(SIGKILL\); often memory .* train --resume runs"),
        ("aborted", JobFailedError, r"process 1 of the run was killed \(SIGABRT\), see what it wrote above\. Go on"),
    ],
)
def test_one_that_fails_ends_all_with_its_own_message(kind, error, words):
    with pytest.raises(error, match=words):
        run(kind)


def test_an_error_that_cannot_be_sent_is_sent_in_words():
    assert str(_portable(TwoArgumentsError("odd", 1))) == "TwoArgumentsError: odd"
    assert isinstance(_portable(KeyError("a")), KeyError)


@pytest.mark.slow
def test_a_request_to_stop_reaches_all():
    stop = StopRequest()
    said = []

    def hear(line):
        said.append(line)
        threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()

    with pytest.raises(Interrupted):
        run("waits", hear, stop)
    assert stop.made and said == ["listening"]


def test_several_nodes_need_a_launcher():
    with pytest.raises(ValueError, match="run.nodes = 2 needs a process for each device on each node; start them with"):
        on_devices(
            load_config(settings=["run.nodes=2"]),
            work,
            {},
            announce=print,
            stop=StopRequest(),
            folder=Path("runs/x"),
        )


@pytest.mark.slow
def test_the_command_on_two_devices_and_under_torchrun(tmp_path):
    """Ctrl-C to the first leaves a checkpoint; torchrun goes on from it, and one process alone prints."""
    words = features.settings(features.write(tmp_path / "v.safetensors"), "run.devices=2", "run.accelerator=cpu")
    arguments = ["-m", "polyanchor", "train", *(f"--{setting}" for setting in words)]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    options = {"env": environment, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    begun = subprocess.Popen(
        [sys.executable, *arguments, "--run.epochs", "100000", "--out", str(tmp_path / "run")], **options
    )
    for line in begun.stderr:
        if line.startswith("epoch 2/"):
            begun.send_signal(signal.SIGINT)
            break
    rest = begun.stderr.read()
    assert begun.wait() == 1
    assert rest.count("stopped; go on with: polyanchor train --resume") == 1
    assert "Traceback" not in rest
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    resume = [*torchrun, *arguments[:3], "--resume", str(tmp_path / "run"), "--run.epochs", "600000"]
    short = subprocess.run([*resume, "--optim.lr", "1"], timeout=120, **options)
    assert short.returncode != 0
    assert short.stderr.count("a resumed run can change") == 1
    whole = subprocess.run([*torchrun, *arguments, "--out", str(tmp_path / "other")], timeout=120, **options)
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.count("R-precision") == 1 and whole.stderr.count("epoch 1/2") == 1

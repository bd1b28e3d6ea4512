"""A request to stop comes as a signal, at any moment."""

import io
import os
import signal
import subprocess
import sys
import time

import pytest

from polyanchor.training.stopping import StopRequest
from tests.tiny_runs import arguments


def test_a_request_is_heard_once_and_a_second_one_stops_at_once():
    heard = []
    with StopRequest(heard.append).listening() as stop:
        assert not stop.made
        signal.raise_signal(signal.SIGINT)
        assert stop.made and len(heard) == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_request_in_the_middle_of_a_written_line_is_a_request_too():
    class Raw(io.RawIOBase):
        """Ctrl-C comes while it writes."""

        def writable(self):
            return True

        def write(self, content):
            if not stop.made:
                signal.raise_signal(signal.SIGINT)
            return len(content)

    stream = io.BufferedWriter(Raw())

    def announce(line):
        stream.write(line.encode())
        stream.flush()

    with StopRequest(announce).listening() as stop:
        announce("epoch 2")
    assert stop.made


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGUSR1", 138)])
def test_a_signal_that_ends_programs_counts_once_and_gives_its_exit_code(name, code):
    number = getattr(signal, name)
    with StopRequest().listening() as stop:
        signal.raise_signal(number)
        signal.raise_signal(number)  # `timeout` sends it twice
    assert stop.made and stop.exit_code == code


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    try:
        with StopRequest().listening() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert not stop.made
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "command"), [(1, "train"), (2, "train"), (1, "compare")], ids=["train", "two-devices", "compare"]
)
def test_sigterm_finishes_the_step_writes_the_checkpoint_and_says_how_to_go_on(photos, tmp_path, devices, command):
    folder, more = tmp_path / "run", []
    if command == "compare":
        more = ["--method", "proxy-anchor", "--seeds", "1", "--trials", "0"]
    settings = arguments(photos, "run.epochs=5000", f"run.devices={devices}", "run.accelerator=cpu", "run.threads=1")
    process = subprocess.Popen(
        [sys.executable, "-m", "polyanchor", command, *settings, *more, "--out", str(folder)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not list(folder.rglob("last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 143, err
    assert ("go on with: polyanchor train --resume" if command == "train" else "the same command goes on") in err
    assert "Traceback" not in err
    assert list(folder.rglob("last.ckpt"))

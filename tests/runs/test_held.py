"""One process at a time works in a folder: a living one is named, a killed one leaves nothing in the way."""

import json
import os
import platform
import signal
import subprocess
import sys
import time

import pytest

from polyanchor.cli.app import run as command_line
from polyanchor.runs.folder import RunFolder, held
from polyanchor.training.train import fit, train
from tests.compare import features


@pytest.mark.slow
def test_a_killed_process_holds_nothing(tmp_path):
    code = "import sys, time; from pathlib import Path; from polyanchor.runs.folder import held\n"
    code += "with held(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    words = f"is in use by process {other.pid} on {platform.node()}, since 20.*; wait until it has ended, stop it, or"
    for _ in range(2):  # who tried does not take away what it says
        with pytest.raises(ValueError, match=words), held(tmp_path):
            pass
    other.kill()
    other.wait()
    with held(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()
    assert [file.name for file in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize("work", [train, lambda config, out: fit(config, RunFolder(out))], ids=["train", "fit"])
def test_a_run_holds_its_folder_until_it_has_ended(tmp_path, work):
    config = features.config(features.write(tmp_path / "v.safetensors"), "run.epochs=1")
    (tmp_path / "run").mkdir()
    with held(tmp_path / "run"), pytest.raises(ValueError, match="in use by process"):
        work(config, tmp_path / "run")
    work(config, tmp_path / "run")  # the folder counts as empty
    with held(tmp_path / "run"), pytest.raises(ValueError, match="in use by process"):
        train(config, tmp_path / "run", resume=True)
    with pytest.raises(FileExistsError, match="is not empty"):
        work(config, tmp_path / "run")


def test_what_is_no_run_gets_no_lock(tmp_path):
    config = features.config(features.write(tmp_path / "v.safetensors"), "run.epochs=1")
    for options, error in (({}, FileExistsError), ({"resume": True}, FileNotFoundError)):
        with pytest.raises(error):
            train(config, tmp_path, **options)
    assert [file.name for file in tmp_path.iterdir()] == ["v.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_second_command_says_who_is_at_work(tmp_path, capsys, devices):
    run, vectors = RunFolder(tmp_path / "run"), features.write(tmp_path / "v.safetensors")
    words = features.settings(vectors, f"run.devices={devices}", "run.accelerator=cpu", "run.epochs=100000")
    command = ["train", *(f"--{setting}" for setting in words)]
    first = subprocess.Popen(
        [sys.executable, "-m", "polyanchor", *command, "--out", str(run.path)],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not run.last.is_file() and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        pid = json.loads((run.path / "lock.json").read_text())["pid"]
        assert (pid == first.pid) == (devices == 1)
        for way in (["train", "--resume", str(run.path)], [*command, "--out", str(run.path)]):
            assert command_line([*way, "--run.devices", "1"]) == 2
            said = " ".join(capsys.readouterr().err.split())
            assert f"in use by process {pid} on {platform.node()}" in said
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        if devices == 2:
            os.kill(pid, signal.SIGKILL)  # of a process group of its own
        first.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:  # the system takes a moment
        try:
            with held(run.path):
                break
        except ValueError:
            time.sleep(0.1)
    else:
        pytest.fail("still held")

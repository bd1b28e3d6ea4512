"""The top of the command line."""

import subprocess
import sys

import pytest

import polyanchor
from polyanchor.cli.app import run


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == polyanchor.__version__


def test_help_shows_an_example(subtests, capsys):
    for command in (
        "demo",
        "train",
        "evaluate",
        "embed",
        "data",
        "data list",
        "data verify",
        "explore",
        "report",
        "compare",
        "analyze",
        "analyze gradients",
        "analyze proxies",
        "analyze measures",
        "index",
        "index build",
        "index add",
        "index remove",
        "index check",
        "index info",
        "search",
    ):
        with subtests.test(command):
            assert run([*command.split(), "--help"]) == 0
            assert f"polyanchor {command}" in " ".join(capsys.readouterr().out.split())


def test_an_unknown_command(capsys):
    assert run(["trian"]) == 2
    assert "trian" in capsys.readouterr().err


def test_a_fault_of_ours_is_exit_code_1(monkeypatch, capsys):
    from polyanchor.training import train as room

    def broken(*args, **kwargs):
        raise RuntimeError("out of order")

    monkeypatch.setattr(room, "train", broken)
    assert run(["train"]) == 1
    err = capsys.readouterr().err
    assert "RuntimeError: out of order" in err
    assert "Traceback" not in err


def test_ctrl_c_says_so_wherever_it_is_heard(monkeypatch, capsys):
    from polyanchor.training import train as room

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "train", interrupted)
    assert run(["train"]) == 1
    assert capsys.readouterr().err.strip().endswith("polyanchor: stopped")


@pytest.mark.slow
def test_as_a_module():
    done = subprocess.run([sys.executable, "-m", "polyanchor", "--version"], capture_output=True, text=True)
    assert done.stdout.strip() == polyanchor.__version__

"""What a damaged file of a run does to each command that reads it: the output is as before, or the file is named."""

import json
import random
import shutil

import pytest
import torch
from safetensors.torch import save_file

from polyanchor.cli.app import run

COMMANDS = {
    "evaluate": ["evaluate", "RUN", "--json"],
    "embed": ["embed", "RUN", "--out", "OUT.safetensors"],
    "report": ["report", "RUN", "--no-tsne", "--points", "20", "--queries", "1", "--out", "OUT.html"],
    "table": ["embed", "RUN", "--out", "OUT.parquet"],
    "proxies": ["analyze", "proxies", "RUN", "--out", "OUT", "--json"],
    "gradients": ["analyze", "gradients", "RUN", "--batches", "1", "--out", "OUT", "--json"],
    "export": ["export", "RUN", "--to", "safetensors", "--out", "OUT", "--json"],
    "index": ["index", "build", "RUN", "--out", "OUT", "--json"],
    "resume": ["train", "--resume", "RUN", "--json"],
}
READ_BY = {
    "config.toml": set(COMMANDS),
    "split.json": {"export", "index", "resume"},
    "results.json": {"report", "export", "index"},
    "model.safetensors": set(COMMANDS) - {"resume"},
    "per_query.safetensors": {"report"},
    "checkpoints/last.ckpt": {"resume"},
    "checkpoints/best.ckpt": {"resume"},
}
FIRST = {  # the command that reads it soonest
    "config.toml": "evaluate",
    "split.json": "export",
    "results.json": "report",
    "model.safetensors": "evaluate",
    "per_query.safetensors": "report",
    "checkpoints/last.ckpt": "resume",
    "checkpoints/best.ckpt": "resume",
}


def zeroed(content):
    middle = len(content) // 2
    return content[:middle] + bytes(40) + content[middle + 40 :]


DAMAGE = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "zeroed": zeroed,
    "all zeros": lambda content: bytes(len(content)),
    "garbage": lambda content: random.Random(0).randbytes(len(content)),
    "not UTF-8": lambda content: b"\xff\xfe" + content,
    "another's": lambda content: b'{"a": 1}',
    "nested": lambda content: b"[" * 200_000,
    "a folder": None,
}


def harm(file, kind):
    content = file.read_bytes()
    file.unlink()
    if kind == "a folder":
        file.mkdir()
    else:
        file.write_bytes(DAMAGE[kind](content))


def said_by(capsys, words, folder, out):
    """Exit code, stdout and stderr of a command."""
    shutil.rmtree(out.parent, ignore_errors=True)
    out.parent.mkdir()
    code = run([word.replace("RUN", str(folder)).replace("OUT", str(out)) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def agrees(capsys, folder, file, command, out, healthy=None):
    """The command ends with 2 and names the file first, or with 0 and what it gives without the damage."""
    code, printed, err = said_by(capsys, COMMANDS[command], folder, out)
    if code == 0:
        assert healthy is None or json.loads(printed).get("test", json.loads(printed)) == healthy, (command, file.name)
        return
    last = err[err.rindex("polyanchor: ") :] if "polyanchor: " in err else err
    names = tuple(f"polyanchor: {place}" for place in (file, f"{folder} ", f"{folder}: "))
    assert (code, last.startswith(names), file.name in last) == (2, True, True), (command, code, last)
    assert "Traceback" not in err


@pytest.fixture
def healthy(finished_runs, tmp_path):
    """A copy of a run, and what commands print of it."""
    folder = tmp_path / "run"
    shutil.copytree(finished_runs.on_vectors, folder)
    measured = json.loads((folder / "results.json").read_text())["test"]
    return folder, {"evaluate": measured, "resume": measured}


@pytest.mark.slow
@pytest.mark.parametrize("name", FIRST)
def test_a_damaged_file_is_named_or_does_no_harm(subtests, name, healthy, tmp_path, capsys):
    whole, printed = healthy
    for kind in DAMAGE:
        with subtests.test(kind):
            folder = tmp_path / kind
            shutil.copytree(whole, folder)
            harm(folder / name, kind)
            agrees(capsys, folder, folder / name, FIRST[name], tmp_path / "o" / "out", printed.get(FIRST[name]))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_the_damaged_file_that_it_reads(command, healthy, tmp_path, capsys):
    folder, printed = healthy
    for name in (name for name, commands in READ_BY.items() if command in commands):
        whole = (folder / name).read_bytes()
        harm(folder / name, "garbage")
        agrees(capsys, folder, folder / name, command, tmp_path / "o" / "out", printed.get(command))
        (folder / name).write_bytes(whole)


def test_a_configuration_that_breaks_off_is_not_filled_up_with_defaults(healthy, tmp_path, capsys):
    folder, _ = healthy
    text = (folder / "config.toml").read_text()
    lines = text.splitlines(keepends=True)
    for cut in ("".join(lines[:-20]), text.replace("[run]\n", ""), text[:-1], text[:-2]):
        (folder / "config.toml").write_text(cut)
        code, _, err = said_by(capsys, COMMANDS["evaluate"], folder, tmp_path / "o" / "out")
        assert (code, err.startswith(f"polyanchor: {folder / 'config.toml'}")) == (2, True), err


@pytest.mark.slow
def test_another_runs_files_are_refused(finished_runs, tmp_path, capsys):
    for name in ("model.safetensors", "config.toml"):
        folder = tmp_path / name.partition(".")[0]
        shutil.copytree(finished_runs.on_vectors, folder)
        shutil.copy(finished_runs.on_photos / name, folder / name)
        for command in ("evaluate", "proxies", "export", "index"):
            code, _, err = said_by(capsys, COMMANDS[command], folder, tmp_path / "o" / "out")
            assert code == 2
            assert err.startswith(f"polyanchor: {folder / 'model.safetensors'} does not fit the run's config.toml"), err


HEAD = {"model.head.weight": torch.ones(6, 10), "model.head.bias": torch.ones(6)}


def test_weights_that_are_not_a_runs(subtests, healthy, tmp_path, capsys):
    folder, _ = healthy
    for tensors in ({}, {"a": torch.ones(2)}, HEAD, HEAD | {"classes": torch.arange(5)}):
        with subtests.test(list(tensors)):
            save_file(tensors, folder / "model.safetensors")
            code, _, err = said_by(capsys, COMMANDS["proxies"], folder, tmp_path / "o" / "out")
            assert (code, err.startswith(f"polyanchor: {folder / 'model.safetensors'} ")) == (2, True), err

"""`polyanchor train` as a user types it: table, JSON, Ctrl-C in a real process, errors without tracebacks."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from polyanchor.cli.app import run
from polyanchor.config.loading import dump_config
from polyanchor.training import stopping
from tests.tiny_runs import arguments, config


def test_table_on_stdout_the_rest_on_stderr(photos, tmp_path, capsys):
    assert run(["train", *arguments(photos, "run.epochs=1"), "--out", str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"│ +8 │ +[01]\.\d{4} │", out)
    assert "MAP@R" in out
    assert "16 queries, each searched among 15 items" in out
    assert "epoch 1/1" in err
    assert "= 30 x backbone" in err
    assert "Tip" not in out + err
    assert "weights_only" not in out + err


def test_a_command_that_asks_for_nothing_says_what_it_does(tmp_path, capsys, monkeypatch):
    def interrupted(*args, **options):
        raise stopping.Interrupted

    monkeypatch.setattr("polyanchor.training.train.train", interrupted)
    out = str(tmp_path / "run")
    assert run(["train", "--out", out]) == 1
    assert f"no SOURCE and no flags: the defaults, on digits, into {out}" in capsys.readouterr().err
    assert run(["train", "--run.epochs", "1", "--out", out]) == 1
    assert "the defaults" not in capsys.readouterr().err


def test_json_is_what_the_run_wrote(photos, tmp_path, capsys):
    assert run(["train", *arguments(photos, "run.epochs=1"), "--out", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "run" / "results.json").read_text())


@pytest.mark.slow
def test_a_batch_size_is_announced_and_limited_by_the_classes(photos, tmp_path, capsys):
    file = tmp_path / "c.toml"
    file.write_text(dump_config(config(photos, "run.epochs=1")))
    command = ["train", "--config", str(file), "--out", str(tmp_path / "run"), "--batch-size", "30"]
    assert run(command) == 0
    err = capsys.readouterr().err
    assert "batch     6 items (not 30, as there are 2 classes to train)" in err
    more = ["--val-share", "0", "--micro-batch-size", "4"]
    command = ["train", "--config", str(file), *more, "--out", str(tmp_path / "more")]
    assert run([*command, "--batch-size", "12"]) == 0
    assert "batch     12 items, 4 at most at once through the network" in capsys.readouterr().err
    assert run([*command, "--batch-size", "13"]) == 2
    assert "must be a multiple of batches.samples_per_class = 3, got 13; take 12" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_that_resumes(photos, tmp_path):
    more = "run.epochs=400", "data.val_share=0", "data.workers=1"
    command = [sys.executable, "-c", "from polyanchor.cli import main; main()", "train"]
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [*command, *arguments(photos, *more), "--out", str(folder)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (folder / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: the workers get it too
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"go on with: polyanchor train --resume {folder}" in err
    assert "Traceback" not in err
    assert "Ctrl-C again stops at once" in err
    epoch = len(re.findall(r"^epoch \d+/400", err, re.MULTILINE))
    again = subprocess.run(
        [*command, "--resume", str(folder), "--run.epochs", f"{epoch + 2}", "--json"],
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["epoch"] == epoch + 2
    curves = [(folder / "logs" / "csv" / part / "metrics.csv").read_text() for part in ("part-1", "part-2")]
    assert all("train/loss" in curve for curve in curves)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--loss.ancor", "data"], "unknown key 'loss.ancor'; did you mean 'loss.anchor'?"),
        (["--data.source", "folder:nowhere"], "nowhere"),
        (["--data.source", "cars19"], "did you mean 'cars196'"),
        (["nowhere.toml"], "write polyanchor train --config nowhere.toml"),
        (["--config", "nowhere.toml"], "does not exist"),
        (["--resume", ".", "--out", "elsewhere"], "leave --out out, got elsewhere"),
        (["--resume", "."], "is not a run: it has no config.toml"),
        (["--model.backbone", "resnet18.no_such_weights"], "no_such_weights"),
        (["--no-such-option"], "--no-such-option"),
        (["--model.backbone", "resnet_18"], "did you mean 'resnet18'"),
        (["--model.weights", "w.pth"], "found no file 'w.pth'"),
        (["--data.source", "features:f.npz"], "no such file"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["train", *arguments]) == 2
    err = capsys.readouterr().err
    assert words in " ".join(err.split())
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(capsys):
    assert run(["--debug", "train", "--loss.ancor", "data"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.slow
def test_a_folder_with_brackets_in_its_name_is_printed_as_it_is(photos, tmp_path, capsys):
    assert run(["train", *arguments(photos, "run.epochs=1"), "--out", str(tmp_path / "[v2]a[/b]")]) == 0
    assert "[v2]a[" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stop", "skip"])
def test_a_corrupt_image(photos, tmp_path, how, capsys):
    (photos / "class5" / "3.png").write_bytes(b"no image")
    code = run(["train", *arguments(photos, "run.epochs=1"), "--out", str(tmp_path / "run"), "--on-bad-image", how])
    out, err = capsys.readouterr()
    if how == "stop":
        assert code == 2
        assert "3.png" in err
        assert "--on-bad-image skip" in err
        assert not (tmp_path / "run").exists()  # it is a test image, and found before the training
    else:
        assert code == 0
        assert "note: 1 image could not be read and was left out: class5/3.png" in out
        assert "15 queries" in out


@pytest.mark.slow
def test_a_large_image_is_found_before_the_training_unless_it_is_allowed(photos, tmp_path, capsys):
    Image.new("RGB", (300, 300)).save(photos / "class5" / "3.png")
    command = ["train", *arguments(photos, "run.epochs=1", "data.max_pixels=80_000"), "--out", str(tmp_path / "run")]
    assert run(command) == 2
    assert "3.png cannot be read: it has 90,000 pixels, and data.max_pixels allows 80,000" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert run([*command, "--data.max_pixels", "90_000"]) == 0
    evaluate = ["evaluate", str(tmp_path / "run"), "--data", f"folder:{photos}"]
    assert run(evaluate) == 0
    assert run([*evaluate, "--data.max_pixels", "80_000"]) == 2


@pytest.mark.slow
def test_bad_images_of_training_and_validation_are_counted_too(photos, tmp_path, capsys):
    for number in range(4):  # two of these classes train, two validate
        (photos / f"class{number}" / "3.png").write_bytes(b"no image")
    changes = arguments(photos, "run.epochs=2", "batches.samples_per_class=8")
    assert run(["train", *changes, "--out", str(tmp_path / "run"), "--on-bad-image", "skip"]) == 0
    out = capsys.readouterr().out
    assert "note: validation: 2 images could not be read and were left out" in out
    assert "note: 2 images could not be read and were left out in training" in out
    command = ["evaluate", str(tmp_path / "run"), "--data", f"folder:{photos}"]
    assert run([*command, "--on-bad-image", "stop"]) == 2
    assert "--on-bad-image skip" in capsys.readouterr().err
    assert run([*command, "--on-bad-image", "skip"]) == 0
    assert "44 queries" in capsys.readouterr().out

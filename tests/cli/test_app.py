"""The top of the command line."""

import subprocess
import sys
from typing import get_args

import pytest
import typer

import polyanchor
from polyanchor.cli import app, train
from polyanchor.cli.app import run
from polyanchor.config.loading import load_config
from polyanchor.config.schema import LOSSES, Config


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == polyanchor.__version__


@pytest.mark.slow
def test_help_shows_an_example(subtests, capsys):
    for command in (
        "demo",
        "train",
        "config",
        "evaluate",
        "embed",
        "data",
        "data list",
        "data verify",
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
        "index search",
        "search",
    ):
        with subtests.test(command):
            assert run([*command.split(), "--help"]) == 0
            text = capsys.readouterr().out
            assert f"polyanchor {command}" in " ".join(text.split())
            assert run([*command.split(), "-h"]) == 0
            assert capsys.readouterr().out == text


def test_the_help_lists_every_command_under_a_heading():
    listed = [name for names in app.SECTIONS.values() for name in names]
    shown = [name for name, command in typer.main.get_command(app.app).commands.items() if not command.hidden]
    assert sorted(listed) == sorted(shown)


def test_completion_knows_the_options_and_their_choices(monkeypatch, capsys):
    for words, completed in (("train --lo", "--loss"), ("train --loss mi", "mixed"), ("index se", "search")):
        monkeypatch.setenv("_POLYANCHOR_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", f"polyanchor {words}")
        monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
        with pytest.raises(SystemExit):
            run([])
        assert completed in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --set loss.anchor=data", "write --loss.anchor data"),
        ("evaluate runs/a --set=run.k=1", "write --run.k 1"),
        ("train --effective-batch 480", "--effective-batch is called --batch-size now"),
        ("evaluate runs/a --part train", "--part is called --split now"),
        ("search a.index q.jpg --breadth=9", "--breadth is called --search-effort now"),
        ("compare --against class", "--against is called --reference now"),
        ("train c.toml", "write polyanchor train --config c.toml"),
        ("compare c.toml", "write polyanchor compare --config c.toml"),
        ("embed c.toml --features --out x.safetensors", "write polyanchor embed --features --config c.toml"),
    ],
)
def test_former_options_name_the_present_ones(words, message, capsys):
    assert run(words.split()) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --epoch 3", "did you mean '--epochs'?"),
        ("train --optim.lrr 1", "unknown key 'optim.lrr'; did you mean 'optim.lr'?"),
        ("train --weight-decay", "--weight-decay needs a value"),
        ("train --weights --val-share 0.1 photos/", "--weights needs a value"),
        ("train --loss. 3", "No such option: --loss."),
        ("train digits --source digits", "--source sets what SOURCE sets, too"),
        (
            "train --backbone none",
            "digits holds images, and model.backbone = 'none' takes vectors; give a file",
        ),
        ("train --k a,b", "got 'a'"),
        ("train nowhere/", "folder:nowhere/: no such file or folder"),
        ("train digits --test features:nowhere.npz", "features:nowhere.npz: no such file or folder"),
        ("train --scale 1", "--scale may be --images.scale or --loss.scale"),
        ("train --loss mixd", "did you mean 'mixed'?"),
        ("train --lr 1 --optim.lr 2", "--optim.lr sets what --lr sets, too"),
        ("train --device cuda:1", "CUDA_VISIBLE_DEVICES=1"),
        ("train --batch-size 482", "take 480"),
        ("export . --to onnxx --out x", "did you mean 'onnx'?"),
        ("train sop2", "did you mean 'sop'"),
    ],
)
def test_a_wrong_flag_is_bad_usage_and_names_the_right_one(words, message, capsys):
    assert run(words.split()) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_flags_become_the_configuration(capsys, tmp_path):
    """Own options, dotted and bare keys, both spellings, on top of a file; the printed configuration is read back."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "c.toml").write_text("[run]\nepochs = 3\nseed = 1\n[images]\nsize = 96\nresize = 96\n")
    words = ["--loss", "mixed", "--batch-size", "240", "--image-size", "48", "--seed=7", "--k", "[1, 10]"]
    words += ["--model.freeze_bn", "true", "--val-share=0.1", "--clip_value", "5", "--delta", "-0.1"]
    assert run(["config", f"{tmp_path}/photos/", "--config", str(tmp_path / "c.toml"), *words]) == 0
    (tmp_path / "new.toml").write_text(capsys.readouterr().out)
    config = load_config(tmp_path / "new.toml")
    assert config.data.source == f"folder:{tmp_path}/photos/" and config.data.val_share == 0.1
    assert (config.loss.anchor, config.loss.delta) == ("mixed", -0.1)
    assert config.batches.classes_per_batch == 60 and config.model.freeze_bn and config.optim.clip_value == 5
    assert (config.images.size, config.images.resize) == (48, 48)
    assert (config.run.epochs, config.run.seed, config.run.k) == (3, 7, (1, 10))


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--k", "1", "--k=10", "--loggers", "csv", "--k", "[20, 30]"], "run.k", (1, 10, 20, 30)),
        (["--loggers", "csv", "--loggers", "wandb"], "run.loggers", ("csv", "wandb")),
        (["--seed", "1", "--precision", "64-true"], "run.precision", "64-true"),
        (["--freeze-bn", "--lr", "1"], "model.freeze_bn", True),
        (["--lr", "1", "--freeze-bn"], "model.freeze_bn", True),
        (["--flip", "false", "digits"], "images.flip", False),
        (["--no-flip", "digits"], "images.flip", False),
        (["--k", "1,5", "--k", "9"], "run.k", (1, 5, 9)),
        (["--loggers", "csv, wandb"], "run.loggers", ("csv", "wandb")),
        (["--allow-partial", "digits"], "data.allow_partial", True),
        (["--allow-partial=True", "digits"], "data.allow_partial", True),
        (["--clip", "norm", "--clip", "value", "--clip", "norm"], "optim.clip", "norm"),
        (["--root", "2024-05-01"], "data.root", "2024-05-01"),
        (["--root", "1_000"], "data.root", "1_000"),
        (["--weights", "1e3"], "model.weights", "1e3"),
        (["--root", '"a b"'], "data.root", "a b"),
    ],
)
def test_a_flag_takes_its_own_value(words, key, value, capsys, tmp_path):
    """Lists grow, a switch needs no value, a path is a text whatever it looks like, and no flag eats another word."""
    assert run(["config", *words]) == 0
    (tmp_path / "c.toml").write_text(capsys.readouterr().out)
    section, _, name = key.partition(".")
    config = load_config(tmp_path / "c.toml")
    assert getattr(getattr(config, section), name) == value and config.data.source == "digits"


def test_the_defaults_in_the_help_of_train_are_those_of_the_configuration():
    shown = {
        option.opts[0]: option.show_default
        for option in typer.main.get_command(app.app).commands["train"].params
        if isinstance(option.show_default, str)
    }
    config = Config()
    for flag, default in {
        "--backbone": config.model.backbone,
        "--loss": config.loss.anchor,
        "--proxies-per-class": config.loss.proxies_per_class,
        "--epochs": config.run.epochs,
        "--batch-size": config.batches.classes_per_batch * config.batches.samples_per_class,
        "--lr": config.optim.lr,
        "--image-size": config.images.size,
        "--device": config.run.accelerator,
        "--precision": config.run.precision,
        "--seed": config.run.seed,
        "--workers": config.data.workers,
        "--on-bad-image": config.data.on_bad_image,
        "source": config.data.source,
    }.items():
        assert shown.pop(flag) == str(default)
    assert set(shown) == {"--out", "--weights", "--micro-batch-size"}
    assert get_args(train.LOSS) == ("class", "data", "mixed", *(name for name in LOSSES if name != config.loss.name))


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

"""What every option and path of the command line has in common."""

import ast
import io
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from polyanchor.cli import app as top
from polyanchor.cli._output import print_json
from polyanchor.cli.app import run

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "polyanchor").rglob("*.py"))


@pytest.fixture
def file(tmp_path):
    """Vectors with a train part, whose items find their class, and a test part, whose items do not."""
    vectors = torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1], [1, 0], [0, 1], [1, 0.1], [0.1, 1]])
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    save_file({"vectors": vectors, "labels": labels, "split": labels.div(2).long()}, tmp_path / "v.safetensors")
    return tmp_path / "v.safetensors"


@pytest.mark.parametrize(
    "words",
    [
        ["--data", "digits"],
        ["--set", "data.source=nonsense"],
        ["--on-bad-image", "skip"],
        ["--part", "validation"],
        ["--part", "nonsense"],
    ],
)
def test_an_option_that_cannot_apply_to_a_file_is_an_error(words, file, capsys):
    assert run(["evaluate", str(file), *words]) == 2
    said = capsys.readouterr()
    assert words[0].strip("-") in said.err
    assert not said.out


def test_the_part_of_a_file_is_the_one_that_is_measured(file, capsys):
    for part, recall in (("test", "0.0000"), ("train", "1.0000")):
        assert run(["evaluate", str(file), "--part", part, "--k", "1"]) == 0
        said = capsys.readouterr().out
        assert recall in said and f"the {part} part of the file, 4 of 8 rows" in " ".join(said.split())


def test_a_part_beside_other_data_is_an_error(tmp_path, file, capsys):
    for words in (
        ["evaluate", str(tmp_path), "--data", "digits", "--part", "train"],
        ["embed", str(tmp_path), "--data", "digits", "--part", "train", "--out", str(tmp_path / "o.safetensors")],
        ["index", "build", str(tmp_path), "digits", "--part", "train", "--out", str(tmp_path / "i")],
        ["index", "build", str(file), "--part", "train", "--out", str(tmp_path / "i")],
    ):
        assert run(words) == 2
        assert "--part" in capsys.readouterr().err


@pytest.mark.parametrize("fault", [ValueError, TypeError])
def test_a_fault_of_the_program_is_never_called_bad_input(fault, monkeypatch, capsys):
    from polyanchor.training import reuse, train

    def broken(*args, **kwargs):
        raise fault("out of order")

    for module, name, words in (
        (train, "train", ["train"]),
        (reuse, "evaluate_file", ["evaluate", __file__]),
        (reuse, "embed_run", ["embed", "--out", "x.safetensors"]),
    ):
        monkeypatch.setattr(module, name, broken)
        assert run(words) == 1
        assert "--debug" in capsys.readouterr().err
        assert run([*words, "--debug"]) == 1
        assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("before", ["", "--out=", "model.weights=", "--set=model.weights="])
def test_the_home_folder_is_known_wherever_a_path_stands(before, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert top._with_home(f"{before}~/a b") == f"{before}{tmp_path / 'a b'}"
    assert top._with_home(f"{before}x~") == f"{before}x~"


def test_a_command_writes_into_the_home_folder(monkeypatch, tmp_path, file, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert run(["index", "build", "~/v.safetensors", "--out=~/i"]) == 0
    assert (tmp_path / "i").is_dir() and not (tmp_path / "~").exists()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_letters_that_the_output_lacks_are_escaped_in_json(encoding, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    print_json({"path": "кот.png"})
    sys.stdout.flush()
    assert rb'"\u043a\u043e\u0442.png"' in raw.getvalue()


def _texts(tree):
    """The strings that a user may see: not docstrings of modules and of what no command shows."""
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_no_text_of_the_command_line_names_a_file_that_is_not_installed():
    for source in [*(ROOT / "src" / "polyanchor" / "cli").glob("*.py"), ROOT / "src/polyanchor/training/launch.py"]:
        assert not [text for text in _texts(ast.parse(source.read_text())) if re.search(r"docs/\w+\.md", text)], source


@pytest.mark.parametrize("name", ["filelock", "markupsafe"])
def test_what_is_imported_is_declared(name):
    assert f'"{name}>=' in (ROOT / "pyproject.toml").read_text()


def test_python_knows_the_home_folder_too(monkeypatch, tmp_path):
    from polyanchor import Embedder, Index
    from polyanchor.models.weights import read_state

    monkeypatch.setenv("HOME", str(tmp_path))
    Index.create("~/vectors.index", dim=2)
    assert len(Index.open("~/vectors.index")) == 0 and (tmp_path / "vectors.index").is_dir()
    save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors")
    assert list(read_state(Path("~/w.safetensors"))) == ["a"]
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none"))):
        Embedder.from_run("~/none")


@pytest.mark.parametrize("columns", ["12", "30", "40"])
def test_a_narrow_terminal_costs_no_digit(columns, file, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    assert run(["evaluate", str(file), "--part", "train", "--k", "1"]) == 0
    said = capsys.readouterr().out
    assert "…" not in said and said.count("1.0000") >= 3


def other_data(run_folder, source, place):
    """Every command that takes a run, with data of another kind."""
    other = ["--set", f"data.source={source}"]
    return [
        ["evaluate", run_folder, "--data", source],
        ["evaluate", run_folder, *other],
        ["embed", run_folder, "--data", source, "--out", place / "o.safetensors"],
        ["embed", run_folder, *other, "--part", "all", "--out", place / "o.safetensors"],
        ["report", run_folder, *other, "--out", place / "r.html"],
        ["explore", run_folder, *other, "--no-start", "--out", place / "e"],
        ["analyze", "proxies", run_folder, *other, "--out", place / "p"],
        ["analyze", "gradients", run_folder, *other, "--out", place / "g"],
        ["index", "build", run_folder, source, "--out", place / "i"],
    ]


def test_a_run_says_what_it_takes(finished_runs, tmp_path, capsys):
    narrow = tmp_path / "narrow.safetensors"
    save_file({"vectors": torch.randn(96, 7), "labels": torch.arange(12).repeat_interleave(8)}, narrow)
    takes_vectors = "takes vectors of 10 columns, got "
    for folder, source, said in (
        (finished_runs.on_photos, f"features:{finished_runs.vectors}", "takes images, got "),
        (finished_runs.on_vectors, f"folder:{finished_runs.photos}", takes_vectors),
        (finished_runs.on_vectors, f"features:{narrow}", takes_vectors),
    ):
        for words in other_data(folder, source, tmp_path):
            assert run([str(word) for word in words]) == 2, words
            err = capsys.readouterr().err
            assert "Traceback" not in err
            if words[0] == "index":
                assert f"the model {' '.join(said.split()[:2])}" in err
            else:
                assert f"{folder} {said}" in err, (words, err)
    assert [file.name for file in tmp_path.iterdir()] == [narrow.name]


def test_two_sources_of_different_widths_are_refused_before_the_training(finished_runs, tmp_path, capsys):
    save_file({"vectors": torch.randn(8, 7), "labels": torch.arange(8) // 2}, tmp_path / "v.safetensors")
    words = [f"data.source=features:{finished_runs.vectors}", f"data.test=features:{tmp_path / 'v.safetensors'}"]
    settings = [word for setting in (*words, "model.backbone=none") for word in ("--set", setting)]
    assert run(["train", *settings, "--out", str(tmp_path / "run")]) == 2
    assert "must have the 10 columns of features:" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

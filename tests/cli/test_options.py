"""What every option and path of the command line has in common."""

import ast
import io
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from safetensors.torch import save_file

from polyanchor.cli import app as top
from polyanchor.cli import compare
from polyanchor.cli import index as search
from polyanchor.cli._common import print_json, print_report, print_table
from polyanchor.cli.app import run
from polyanchor.compare.significance import ComparisonResult, MethodResult, SignificanceTests
from polyanchor.config.loading import tomllib
from polyanchor.index.types import Hit
from polyanchor.stats.intervals import Paired
from polyanchor.types import Interval
from tests.tiny_runs import arguments, write_photos

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
        ["--data.source", "nonsense"],
        ["--on-bad-image", "skip"],
        ["--split", "validation"],
        ["--split", "nonsense"],
    ],
)
def test_an_option_that_cannot_apply_to_a_file_is_an_error(words, file, capsys):
    assert run(["evaluate", str(file), *words]) == 2
    said = capsys.readouterr()
    assert words[0].strip("-") in said.err
    assert not said.out


def test_the_part_of_a_file_is_the_one_that_is_measured(file, capsys):
    for part, recall in (("test", "0.0000"), ("train", "1.0000")):
        assert run(["evaluate", str(file), "--split", part, "--k", "1"]) == 0
        said = capsys.readouterr().out
        assert recall in said and f"the {part} part of the file, 4 of 8 rows" in " ".join(said.split())


def test_a_part_beside_other_data_is_an_error(tmp_path, file, capsys):
    for words in (
        ["evaluate", str(tmp_path), "--data", "digits", "--split", "train"],
        ["embed", str(tmp_path), "--data", "digits", "--split", "train", "--out", str(tmp_path / "o.safetensors")],
        ["index", "build", str(tmp_path), "digits", "--split", "train", "--out", str(tmp_path / "i")],
        ["index", "build", str(file), "--split", "train", "--out", str(tmp_path / "i")],
    ):
        assert run(words) == 2
        assert "--split" in capsys.readouterr().err


@pytest.mark.parametrize("fault", [ValueError, TypeError])
def test_a_fault_of_the_program_is_never_called_bad_input(fault, monkeypatch, capsys):
    from polyanchor.runs import load as reuse
    from polyanchor.training import train

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


@pytest.mark.parametrize("before", ["", "--out=", "--model.weights="])
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


def test_nothing_that_is_installed_names_a_file_that_is_not():
    """Help, messages, docstrings, comments, templates: the wheel holds src alone."""
    installed = [file for file in (ROOT / "src").rglob("*") if file.suffix in (".py", ".html", ".js", ".css")]
    assert len(installed) > 140
    assert not [
        file for file in installed if re.search(r"\bdocs/|\b(?!table|README)\w+\.md\b(?!\.jinja)", file.read_text())
    ]


def _names(tree):
    """Of all modules that are imported, by a statement or through ``load``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if called in ("load", "import_module"):
                yield node.args[0].value


def _distribution(requirement):
    return canonicalize_name(Requirement(requirement).name)


@pytest.mark.slow
def test_whatever_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {_distribution(one) for group in groups for one in group}
    with_torch = {_distribution(one) for one in metadata.requires("torch") if "extra ==" not in one}
    found, owners = set(), metadata.packages_distributions()
    for source in SOURCES:
        for name in _names(ast.parse(source.read_text())):
            top_level = name.partition(".")[0]
            if top_level not in sys.stdlib_module_names and top_level != "polyanchor":
                found.add(top_level)
    assert {"torch", "lightning", "PIL", "sklearn", "faiss", "markupsafe"} <= found
    undeclared = {
        name: names
        for name in found
        if not (names := {canonicalize_name(one) for one in owners.get(name, [name])}) & declared
    }
    # whose version is torch's to choose, imported only where torch brings it
    assert set(undeclared) == {"triton"}
    assert all(names & with_torch for names in undeclared.values())


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
    assert run(["evaluate", str(file), "--split", "train", "--k", "1"]) == 0
    said = capsys.readouterr().out
    assert "…" not in said and said.count("1.0000") >= 3


def other_data(run_folder, source, place):
    """Every command that takes a run, with data of another kind."""
    other = ["--data.source", f"{source}"]
    return [
        ["evaluate", run_folder, "--data", source],
        ["evaluate", run_folder, *other],
        ["embed", run_folder, "--data", source, "--out", place / "o.safetensors"],
        ["embed", run_folder, *other, "--split", "all", "--out", place / "o.safetensors"],
        ["report", run_folder, *other, "--out", place / "r.html"],
        ["embed", run_folder, "--data", source, "--out", place / "o.parquet"],
        ["embed", run_folder, *other, "--out", place / "o.parquet"],
        ["analyze", "proxies", run_folder, *other, "--out", place / "p"],
        ["analyze", "gradients", run_folder, *other, "--out", place / "g"],
        ["index", "build", run_folder, source, "--out", place / "i"],
    ]


@pytest.mark.slow
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
            if words[0] == "index":  # of vectors it names both widths, and the sources
                assert f"the model {' '.join(said.split()[:2])}" in err or f"{folder} takes vectors of 10;" in err
            else:
                assert f"{folder} {said}" in err, (words, err)
    assert [file.name for file in tmp_path.iterdir()] == [narrow.name]


def test_two_sources_of_different_widths_are_refused_before_the_training(finished_runs, tmp_path, capsys):
    save_file({"vectors": torch.randn(8, 7), "labels": torch.arange(8) // 2}, tmp_path / "v.safetensors")
    words = [f"data.source=features:{finished_runs.vectors}", f"data.test=features:{tmp_path / 'v.safetensors'}"]
    settings = [f"--{setting}" for setting in (*words, "model.backbone=none")]
    assert run(["train", *settings, "--out", str(tmp_path / "run")]) == 2
    assert "must have the 10 columns of features:" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two runs on vectors, one with a centre a class and one without proxies, a run on images, indexes."""
    folder = tmp_path_factory.mktemp("place")
    generator = torch.Generator().manual_seed(0)
    vectors, labels = torch.randn(48, 6, generator=generator), torch.arange(48) // 8
    save_file({"vectors": vectors, "labels": labels}, folder / "v.safetensors")
    save_file({"vectors": vectors[:3], "labels": labels[:3]}, folder / "more.safetensors")
    photos = write_photos(folder / "photos")
    assert run(["train", *arguments(photos, "run.epochs=1"), "--out", str(folder / "images")]) == 0
    on_vectors = [f"data.source=features:{folder}/v.safetensors", "model.backbone=none", "run.epochs=1"]
    for name, loss in (
        ("run", ["loss.anchor=class", "loss.proxies_per_class=1"]),
        ("none", ["loss.name=supcon", "batches.sampler=balanced"]),
    ):
        few = [one for one in arguments(photos) if not one.startswith(("--images.", "--loss."))]
        words = [one for one in few if not one.startswith(("--data.source", "--model.backbone"))]
        settings = [*words, *(f"--{setting}" for setting in (*on_vectors, *loss))]
        assert run(["train", *settings, "--out", str(folder / name)]) == 0
    assert run(["index", "build", str(folder / "v.safetensors"), "--out", str(folder / "exact.index")]) == 0
    (folder / "empty.csv").write_text("path,label\n")
    return folder


ON_VECTORS = ["--on-bad-image", "skip"]
COMPARE = ["compare", "--data.source", "digits", "--method", "class"]
ADD = ["index", "add", "{}/exact.index", "{}/more.safetensors"]
BUILD = ["index", "build", "{}/run", "--out", "{}/new"]
SEARCH = ["search", "{}/exact.index", "{}/more.safetensors"]
TABLE = ["embed", "{}/run", "--out", "{}/o.parquet"]
TRAIN = ["train", "--data.source", "features:{}/v.safetensors", "--model.backbone", "none"]
INAPPLICABLE = [  # a command, and the option that cannot apply to what it is given
    (TRAIN, ON_VECTORS),
    (["train", "--resume", "{}/run"], ["--out", "{}/other"]),
    (["train", "--resume", "{}/run"], ["--batch-size", "12"]),
    (["evaluate", "{}/run"], ON_VECTORS),
    (["evaluate", "{}/images", "--data", "features:{}/v.safetensors"], ON_VECTORS),
    (["embed", "{}/run", "--out", "{}/o.safetensors"], ON_VECTORS),
    (COMPARE, ["--run.seed", "3"]),
    (COMPARE, ["--loss.name", "arcface"]),
    (COMPARE, ["--loss.anchor", "data"]),
    (COMPARE, ["--reference", "class"]),
    (COMPARE, ["--reference", "arcface"]),
    ([*COMPARE, "--data.val_share", "0"], ["--trials", "2"]),
    (["analyze", "proxies", "{}/run"], ON_VECTORS),
    (["analyze", "proxies", "{}/run"], ["--merged-above", "0.9"]),
    (["analyze", "proxies", "{}/run"], ["--split", "test"]),
    (["analyze", "proxies", "{}/run"], ["--loss.anchor", "data"]),
    (["analyze", "gradients", "{}/run"], ON_VECTORS),
    (["analyze", "gradients", "{}/run"], ["--reference", "nonsense"]),
    (["analyze", "gradients", "{}/run"], ["--loss.anchor", "data"]),
    (["report", "{}/run"], ON_VECTORS),
    (["report", "{}/none"], ["--centres", "2"]),
    (["report", "{}/run", "--class", "2"], ["--centres", "2"]),
    (["report", "{}/run"], ["--class", "nonsense"]),
    (["report", "{}/run"], ["--split", "gallery"]),
    (["report", "{}/run"], ["--loss.anchor", "data"]),
    (TABLE, ON_VECTORS),
    (TABLE, ["--features"]),
    (TABLE, ["--split", "gallery"]),
    (TABLE, ["--loss.anchor", "data"]),
    ([*TABLE, "--split", "train"], ["--data", "features:{}/v.safetensors"]),
    (["export", "{}/run", "--to", "onnx", "--out", "{}/m.onnx"], ["--pixels", "float"]),
    (["export", "{}/images", "--to", "safetensors", "--out", "{}/m"], ["--pixels", "float"]),
    (["export", "{}/images", "--to", "onnx"], ["--out", "{}/m.pt"]),
    (SEARCH, ["--search-effort", "5"]),
    (SEARCH, ["--model", "{}/run"]),
    (SEARCH, ["--store", "somewhere"]),
    (SEARCH, ["--picture", "{}/hits.docx"]),
    (["index", "check", "{}/exact.index"], ["--search-effort", "5"]),
    (BUILD, ON_VECTORS),
    (BUILD, ["--root", "data"]),
    (BUILD, ["--allow-partial"]),
    ([*BUILD, "features:{}/v.safetensors"], ["--split", "train"]),
    (ADD, ON_VECTORS),
    (ADD, ["--root", "data"]),
    (ADD, ["--allow-partial"]),
    (ADD, ["--model", "{}/run"]),
    (["data", "verify", "features:{}/v.safetensors"], ["--images"]),
    (["data", "verify", "features:{}/v.safetensors"], ["--max-pixels", "9"]),
    (["data", "verify", "digits"], ["--root", "data"]),
    (["data", "verify", "folder:{}/photos"], ["--allow-partial"]),
]
ALWAYS = {  # there is no input that they could not apply to
    "train": {
        *("--json", "--resume", "--config", "--backbone", "--weights", "--loss", "--proxies-per-class", "--epochs"),
        *("--micro-batch-size", "--lr", "--image-size", "--device", "--precision", "--seed", "--workers"),
    },
    "compare": {"--config", "--method", "--seeds", "--out", "--json"},
    "analyze gradients": {"--out", "--over-training", "--batches", "--json"},
    "analyze proxies": {"--out", "--classes", "--json"},
    "analyze measures": {"--out", "--galleries", "--json"},
    "report": {"--out", "--queries", "--points", "--tsne", "--json"},
    "export": {"--to", "--json"},
    "search": {"--k", "--exact", "--json"},
    "index add": {"--store", "--json"},
    "data verify": {"--json"},
    "demo": {"--out", "--epochs"},
}


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted({words[0] for words, _ in INAPPLICABLE}))
def test_an_option_that_cannot_apply_is_an_error_that_names_it(subtests, command, place, monkeypatch, capsys):
    capsys.readouterr()
    for words, option in INAPPLICABLE:
        if words[0] == command:
            with subtests.test(" ".join([*words, *option])):
                assert run([word.replace("{}", str(place)) for word in [*words, *option]]) == 2
                said = capsys.readouterr()
                name = option[0].removeprefix("--")
                assert name.replace("-", "_") in said.err.replace("-", "_")
                assert not said.out


def test_every_option_stands_in_one_of_the_two_tables():
    import typer

    def found(command, name):
        if hasattr(command, "commands"):
            for part, inner in command.commands.items():
                yield from found(inner, f"{name} {part}".strip())
        else:
            yield name, {option.opts[0] for option in command.params if option.param_type_name == "option"}

    missing = {}
    for name, options in found(typer.main.get_command(top.app), ""):
        if name in ALWAYS:
            tried = {option[0] for words, option in INAPPLICABLE if " ".join(words).startswith(name)}
            missing[name] = options - tried - ALWAYS[name]
    assert set(missing) == set(ALWAYS)
    assert not {name: options for name, options in missing.items() if options}


ODD = """
import os, sys
from polyanchor.cli.app import run
given = [
    (0, "data verify folder:{odd}"), (1, "data verify folder:{odd} --images"), (0, "data verify folder:{odd} --json"),
    (0, "data list"), (0, "evaluate {odd}.safetensors --k 1"), (0, "evaluate {odd}.safetensors --k 1 --json"),
    (0, "index build {odd}.safetensors --out {odd}.index"), (0, "index info {odd}.index"),
    (0, "index check {odd}.index"),
    (0, "search {odd}.index {odd}.safetensors --k 2"), (2, "index remove {odd}.index {odd}"),
    (2, "evaluate {odd}"), (2, "evaluate {odd}.none"), (2, "train --{odd}"), (2, "{odd}"), (0, "data verify {odd}"),
    (0, "index --help"),
]
for code, words in given:
    odd = os.fsdecode(bytes.fromhex("c581c3b364c5ba20e78cab"))  # as the system would hand it over
    assert run([word.format(odd=odd) for word in words.split()]) == code, words
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "encoding"),
    [
        ({"PYTHONIOENCODING": "ascii"}, "ascii"),
        ({"LC_ALL": "C"}, "utf-8"),  # Python's own answer to a locale that says nothing
    ],
    ids=["ascii", "C"],
)
def test_letters_that_the_streams_lack_cost_no_result(environment, encoding, tmp_path):
    odd = "Łódź 猫"
    photos = write_photos(tmp_path / odd)
    (photos / "class0").rename(photos / f"{odd} {odd}")
    (photos / "class1" / f"{odd}.png").write_text("no image")
    said = json.dumps({"names": [f"{odd}{row}" for row in range(6)], "class_names": {"0": odd, "1": "b", "2": "c"}})
    tensors = {"vectors": torch.randn(6, 4), "labels": torch.arange(6) // 2}
    save_file(tensors, tmp_path / f"{odd}.safetensors", {"polyanchor": said})
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONIOENCODING", "LC_ALL", "LANG")}
    done = subprocess.run([sys.executable, "-c", ODD], cwd=tmp_path, env=clean | environment, capture_output=True)
    out, err = done.stdout.decode(encoding), done.stderr.decode(encoding)
    assert done.returncode == 0, err
    assert "6 items, 4 columns, exact" in out and "No such option" in err


def test_a_usage_error_keeps_to_the_encoding_of_the_stream(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii"))
    assert run(["evaluate", "Łódź 猫"]) == run(["train", "--Łódź"]) == 2
    sys.stderr.flush()
    assert rb"\u0141\xf3d\u017a \u732b" in raw.getvalue() and rb"--\u0141\xf3d\u017a" in raw.getvalue()


@pytest.mark.parametrize("columns", [12, 30, 39, 40, 80])
def test_a_table_loses_nothing_and_below_40_columns_has_one_cell_a_line(columns, monkeypatch, capsys):
    """Through every kind of table that is printed: two of a comparison, hits, counts of a source, measures."""
    monkeypatch.setenv("COLUMNS", str(columns))
    found = Paired(Interval(0.1234, 0.1, 0.15, 40), 0.00139986, 0.00139986)
    means = {"recall@1": Interval(0.8765, 0.86, 0.89, 5), "ndcg@8": Interval(0.7654, 0.7, 0.8, 5)}
    means["map@r"] = Interval(0.6543, 0.6, 0.7, 5)
    tested = {"map@r": SignificanceTests(found, found, found)}
    lines = [
        MethodResult(name, {}, 5, 0, 12.0, None, {}, means, tests) for name, tests in (("class", tested), ("other", {}))
    ]
    compare.print_comparison(ComparisonResult("digits", "other", "map@r", 15, tuple(lines), ()))
    search._print_hits("query.png", [Hit(1234567, 0.98765, "path/of/an/item.png", "label-of-it")])
    print_table(["part", "images", "expected"], [["test", "1234567", "7654321"]])
    report = {f"{name}@1": 0.4321 for name in ("recall", "precision", "ndcg")}
    report |= {"map@r": 0.1111, "r_precision": 0.2222, "mrr": 0.3333}
    print_report({"means": report, "undefined": 0, "queries": 9, "gallery": 8, "notes": []}, title="measures")
    said = capsys.readouterr().out
    whole = ("0.876 ± 0.014", "<= 0.0014", "+0.1234", "1234567", "0.9877", "path/of/an/item.png", "7654321", "0.4321")
    assert all(words in said for words in whole) and "…" not in said
    narrow = [line for line in said.splitlines() if re.fullmatch(r"(\S+@\S+|R-precision|MRR) [\d.]+( ± [\d.]+)?", line)]
    assert len(narrow) == (12 if columns < 40 else 0)

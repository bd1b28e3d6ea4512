"""The benchmarks still run, on sizes at which their numbers mean nothing; the pages show their files."""

import importlib
import importlib.util
import json
import os
import re
from pathlib import Path

import pytest
import torch

from benchmarks import common
from benchmarks.__main__ import SCRIPTS
from benchmarks.table import table

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


@pytest.fixture(autouse=True)
def threads_as_before(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "2"))
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("question", SCRIPTS)
def test_every_script_runs(question, tmp_path, capsys):
    pytest.importorskip("faiss", reason="extra: search")
    pytest.importorskip("pytorch_metric_learning", reason="extra: compare")
    script = importlib.import_module(f"benchmarks.{question}")
    common.main(question, script.rows, script.__doc__, ["--size", "tiny", "--results", str(tmp_path)])
    rows = json.loads((tmp_path / f"{question}.json").read_text())
    assert rows
    for row in rows:
        assert {"question", "case", "unit", "rounds", "reference", "subjects", "targets", "notes", "origin"} <= set(row)
        assert {"command", "commit", "machine", "processor", "torch"} <= set(row["origin"])
    assert question in capsys.readouterr().out


def test_scripts_are_found():
    asked = {"loss_time", "loss_memory", "evaluation_time", "evaluation_memory", "startup", "growth"}
    assert asked <= set(SCRIPTS)


def test_tiny_sizes_never_become_results():
    with pytest.raises(SystemExit):
        common.main("loss_time", lambda size: [], "", ["--size", "tiny"])


def test_rounds_take_turns():
    calls = []
    subjects = {name: lambda name=name: float(calls.append(name) or len(calls)) for name in "ab"}
    found = common.interleaved(subjects, rounds=2, warm_up=0)
    assert "".join(calls) == "abba"
    assert found == {"a": [1.0, 4.0], "b": [2.0, 3.0]}


def test_numbers_of_a_row():
    # within the rounds 1/2, 2/2, 6/3: the median ratio is 1, that of the medians 2/2 as well, of the means 9/7
    samples = {"a": [1.0, 2.0, 6.0], "b": [2.0, 2.0, 3.0]}
    aims = [common.Target("a", 0.9, of="b"), common.Target("b", 2.0, least=True), common.Target("absent", 1.0)]
    row = common.row("x", {"B": 1}, samples, reference="b", targets=aims)
    assert row["subjects"]["a"] == {"median": 2.0, "q1": 1.5, "q3": 4.0, "ratio": 1.0}
    assert [(aim["value"], aim["met"]) for aim in row["targets"]] == [(1.0, False), (2.0, True)]
    assert re.search(r"<= 0.9 x b \(1\) +NOT MET", table([row]))


def test_nothing_has_no_multiple():
    row = common.row("x", {"B": 1}, {"ours": [0.0], "theirs": [2.0]}, unit="MiB", reference="ours")
    assert [set(figures) for figures in row["subjects"].values()] == [{"median", "q1", "q3"}] * 2
    assert "2 MiB" in table([row])


def test_writing_replaces_the_same_case_alone(tmp_path):
    old = [{"question": "x", "case": {"B": size}, "value": "old"} for size in (1, 2)]
    common.write(old, tmp_path)
    common.write([{"question": "x", "case": {"B": 2}, "value": "new"}], tmp_path)
    assert [row["value"] for row in json.loads((tmp_path / "x.json").read_text())] == ["old", "new"]


def test_pages_show_what_the_files_hold():
    spec = importlib.util.spec_from_file_location("performance_tables", ROOT / "docs" / "performance_tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    pages = [page.read_text() for page in tables.PAGES]
    assert [tables.render(page) for page in pages] == pages
    shown = set(re.findall(r"<!-- table: (\w+) -->", pages[0]))
    assert {file.stem for file in FILES} - {"growth"} <= shown


def test_the_page_of_performance_is_short():
    assert len((ROOT / "docs" / "performance.md").read_text().split()) <= 600

"""The tables of docs/results.md are those of the files in results/; the files say where they come from."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "results").rglob("*.json"))


def test_the_page_is_what_the_files_say():
    spec = importlib.util.spec_from_file_location("results_tables", ROOT / "docs" / "results_tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    page = tables.PAGE.read_text()
    assert tables.render(page) == page
    assert page.count("<!-- table: ") == len({file.parent for file in FILES})


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_number_has_its_origin(file):
    results = json.loads(file.read_text())
    assert {"commit", "machine", "torch", "processor"} <= set(results["environment"])
    assert not results["environment"]["commit"].endswith("+"), "run on a changed checkout"
    assert "seed" in results["config"]["run"]

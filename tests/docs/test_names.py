"""Files and names of the package that the pages mention exist."""

import importlib
import re

import pytest

from tests.docs.blocks import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
PAGES += sorted((ROOT / "docs").rglob("*.md")) + sorted((ROOT / "results").glob("*/README.md"))
FOLDERS = "benchmarks", "configs", "docs", "results", "src", "tests"


def resolves(name):
    """Whether a dotted name is a module of the package or what a module holds."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(thing, part):
                return False
            thing = getattr(thing, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_and_names_exist(page):
    text = page.read_text(encoding="utf-8")
    files = re.findall(rf"(?<![\w/.])(?:{'|'.join(FOLDERS)})/[\w./-]*\w", text)
    modules = re.findall(r"`(\w+/\w+\.py)", text)
    missing = [name for name in files if not (ROOT / name).exists() and not (page.parent / name).exists()]
    missing += [name for name in modules if not any((ROOT / base / name).exists() for base in ("", "src/polyanchor"))]
    names = re.findall(r"\bpolyanchor(?:\.[A-Za-z_]\w*)+", text) + re.findall(r"\bbenchmarks\.\w+", text)
    missing += [name for name in dict.fromkeys(names) if not resolves(name)]
    assert missing == []

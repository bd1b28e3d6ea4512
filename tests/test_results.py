"""Tables of docs/results.md and results/*/README.md come from the result files; the files name their origin."""

import importlib.util
import json
import re
from pathlib import Path

from polyanchor.config.loading import load_config

ROOT = Path(__file__).parent.parent
FILES = sorted(file for file in (ROOT / "results").rglob("*.json") if file.parent.name != "published")


def test_pages_show_what_the_files_hold():
    spec = importlib.util.spec_from_file_location("results_tables", ROOT / "docs" / "results_tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    pages = [page.read_text() for page in tables.PAGES]
    assert [tables.render(page) for page in pages] == pages
    shown = set(re.findall(r"<!-- table: (\S+) -->", "".join(pages)))
    names = {file.relative_to(ROOT / "results") for file in FILES}
    assert all(str(name) in shown or str(name.parent) in shown for name in names)


def test_every_number_has_its_origin(subtests):
    assert FILES
    for file in FILES:
        with subtests.test(file.name):
            results = json.loads(file.read_text())
            assert {"commit", "machine", "torch", "processor"} <= set(results["environment"])
            assert not results["environment"]["commit"].endswith("+"), "run on a changed checkout"
            assert results["plan"]["seeds"] >= 2 if "plan" in results else "seed" in results["config"]["run"]


def test_every_published_number_names_its_source_and_stands_on_the_page():
    rows = json.loads((ROOT / "results" / "published" / "recall.json").read_text())["rows"]
    page = (ROOT / "docs" / "reproducing.md").read_text()
    for row in rows:
        assert row["source"] and row["row"]
        recall = " | ".join(f"{value:.1f}" for value in row["recall"].values())
        cells = f"{row['data']} | {row['method']} | {row['backbone']} | {row['embedding_dim']} | {row['of']}"
        assert f"| {cells} | {recall} |" in page


def test_every_configuration_is_valid(subtests):
    files = sorted((ROOT / "configs").rglob("*.toml"))
    assert len(files) >= 14
    for file in files:
        with subtests.test(file.name):
            config = load_config(file)
            if file.parent.name == "proxy_anchor_protocol":
                optim = config.optim
                assert (config.images.size, config.model.embedding_dim, config.run.epochs) == (224, 512, 60)
                assert optim.proxy_lr_mult == 100 and optim.weight_decay == optim.proxy_weight_decay == 1e-4
                assert (config.loss.anchor, config.loss.proxies_per_class, config.loss.init) == ("class", 1, "kaiming")


def test_the_page_of_results_is_short():
    assert len((ROOT / "docs" / "results.md").read_text().split()) <= 900

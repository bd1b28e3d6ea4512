"""Writes the tables of docs/results.md from the files in results/. Run: python docs/results_tables.py."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results.md"
COLUMNS = {"recall@1": "R@1", "recall@2": "R@2", "recall@4": "R@4", "recall@8": "R@8", "ndcg@8": "nDCG@8"}
COLUMNS |= {"map@r": "MAP@R", "r_precision": "R-precision", "mrr": "MRR"}


def describe(results: dict) -> tuple[str, str]:
    """Loss and K of a run."""
    if "epoch" not in results:
        return "none: frozen features", ""
    loss = results["config"]["loss"]
    name = "SoftTriple" if loss["name"] == "softtriple" else f'`anchor="{loss["anchor"]}"`'
    return name, str(loss["proxies_per_class"])


def table(folder: Path) -> str:
    """One row a file, in the order of recall@1."""
    rows = []
    for file in folder.glob("*.json"):
        results = json.loads(file.read_text(encoding="utf-8"))
        means, (name, centres) = results["test"]["means"], describe(results)
        minutes = f"{results['seconds'] / 60:.1f}" if "seconds" in results else ""
        cells = [name, centres, str(results["config"]["run"]["seed"]), *(f"{means[key]:.3f}" for key in COLUMNS)]
        rows.append((means["recall@1"], [*cells, minutes, f"`{results['environment']['commit']}`"]))
    head = ["loss", "K", "seed", *COLUMNS.values(), "minutes", "commit"]
    lines = [
        head,
        ["---"] * 3 + ["---:"] * (len(head) - 4) + ["---"],
        *(cells for _, cells in sorted(rows, key=lambda r: r[0])),
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def render(page: str) -> str:
    """The page with every ``<!-- table: FOLDER -->`` ... ``<!-- end -->`` filled anew."""
    return re.sub(
        r"(<!-- table: (\S+) -->\n).*?(\n?<!-- end -->)",
        lambda found: found[1] + table(ROOT / "results" / found[2]) + "\n<!-- end -->",
        page,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

"""Writes the tables of benchmarks/README.md, docs/performance.md and README.md from benchmarks/results/.

Run: python docs/performance_tables.py
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "benchmarks" / "README.md", ROOT / "docs" / "performance.md", ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
VERSIONS = "torch", "numpy", "pytorch-metric-learning", "open-metric-learning", "torchmetrics", "faiss-cpu"

# the short table: what is measured, file, first words of the case, ours, the other
OVERVIEW = [
    (
        "loss and gradients, 11,318 classes, batch 180",
        ("loss_time", "B 180, D 512, C 11,318, K 1", "polyanchor class", "pytorch-metric-learning ProxyAnchorLoss"),
    ),
    (
        "memory beyond the gradients, 100,000 classes",
        ("loss_memory", "B 180, D 512, C 100,000, K 1", "polyanchor class", "pytorch-metric-learning ProxyAnchorLoss"),
    ),
    (
        "exact evaluation of 20,000 items",
        (
            "evaluation_time",
            "N 20,000, D 512, items per class 5",
            "polyanchor evaluate_retrieval",
            "pytorch-metric-learning AccuracyCalculator",
        ),
    ),
    (
        "training on Stanford Cars, 128 px, batch 120",
        ("training_throughput", "Stanford Cars, B 120, pixels 128", "polyanchor train", "bare loop"),
    ),
]


def rows(question: str) -> list[dict]:
    """The rows of one file."""
    return json.loads((RESULTS / f"{question}.json").read_text(encoding="utf-8"))


def case(row: dict) -> str:
    """The shapes of a row in a few characters."""
    return ", ".join(f"{key} {value:,}" if isinstance(value, int) else str(value) for key, value in row["case"].items())


def shown(value: float, unit: str) -> str:
    """Three digits and a unit that suits them."""
    if unit == "s" and value < 1:
        value, unit = value * 1000, "ms"
    return f"{number(value)} {unit}"


def number(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def limit(aim: dict, unit: str) -> str:
    """A target in words: ``at most 1.0 x three products``."""
    word, bound = ("at most", aim["at_most"]) if "at_most" in aim else ("at least", aim["at_least"])
    return f"{word} {bound:g} x {aim['of']}" if aim["of"] else f"{word} {bound:g} {unit}"


def lines(cells: list[list[str]], numbers: int) -> str:
    """A table whose columns from ``numbers`` on stand to the right."""
    rule = ["---"] * numbers + ["---:"] * (len(cells[0]) - numbers)
    return "\n".join("| " + " | ".join(line) + " |" for line in [cells[0], rule, *cells[1:]])


def table(question: str) -> str:
    """Everything that ran side by side, and where it ran."""
    if not (RESULTS / f"{question}.json").is_file():
        return f"Not measured yet: `python -m benchmarks.{question}`."
    cells = [["case", "subject", "median", "quartiles", "ratio"]]
    measured = rows(question)
    for row in measured:
        for index, (name, figures) in enumerate(row["subjects"].items()):
            low, high = (shown(figures[key], row["unit"]) for key in ("q1", "q3"))
            spread = f"{low} to {high}" if row["rounds"] > 1 else "one run"
            ratio = number(figures["ratio"]) if "ratio" in figures else ""
            cells.append([case(row) * (index == 0), name, shown(figures["median"], row["unit"]), spread, ratio])
    notes = dict.fromkeys(note for row in measured for note in row["notes"])
    about = "".join(f" {note[0].upper()}{note[1:]}." for note in notes)
    reference = "".join(
        f"Ratios are to {name}. " for name in dict.fromkeys(row["reference"] for row in measured) if name
    )
    return f"{lines(cells, 2)}\n\n{reference}{origins(measured)}{about}"


def origins(measured: list[dict]) -> str:
    """Command, commit, machine, versions: once if all rows have the same."""
    unique = dict.fromkeys(
        f"`{origin['command']}`, commit `{origin['commit']}`, {origin['processor']}, {origin['machine']}, "
        + ", ".join(f"{package} {origin[package]}" for package in VERSIONS if package in origin)
        for origin in (row["origin"] for row in measured)
    )
    return "; ".join(unique) + "."


def targets() -> str:
    """Every target and what was measured, missed ones first."""
    cells = []
    for file in sorted(RESULTS.glob("*.json")):
        for row in rows(file.stem):
            for aim in row["targets"]:
                unit = f" {row['unit']}" if aim["of"] is None else ""
                met = "met" if aim["met"] else "**not met**"
                name = f"{file.stem.replace('_', ' ')}: {case(row)}"
                cells.append([name, aim["subject"], limit(aim, row["unit"]), f"{number(aim['value'])}{unit}", met])
    met = sum(line[-1] == "met" for line in cells)
    cells.sort(key=lambda line: line[-1] == "met")
    head = ["what", "subject", "target", "measured", ""]
    return f"{lines([head, *cells], 3)}\n\n{met} of {len(cells)} are met."


def overview(count: int) -> str:
    """The first ``count`` rows of the short table."""
    cells = [["measured on two CPU cores", "polyanchor", "other", "file"]]
    for title, (question, shapes, ours, other) in OVERVIEW[:count]:
        row = next(row for row in rows(question) if case(row) == shapes)
        values = [shown(row["subjects"][name]["median"], row["unit"]) for name in (ours, other)]
        about = other.replace("pytorch-metric-learning", "PML")
        cells.append([title, f"**{values[0]}**", f"{values[1]} ({about})", f"`benchmarks/results/{question}.json`"])
    return lines(cells, 1)


def render(page: str) -> str:
    """The page with what stands between its markers written anew."""
    fill = {"table": table, "overview": lambda count: overview(int(count)), "targets": lambda _: targets()}
    return re.sub(
        r"(<!-- (table|overview|targets): (\w+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}{fill[match[2]](match[3])}\n<!-- end -->",
        page,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")

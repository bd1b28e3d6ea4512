"""Draws docs/figures/performance.svg from benchmarks/results/growth.json. Run: python docs/figures/performance.py."""

import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator

ROOT = Path(__file__).parent.parent.parent
# first words of a subject -> label, colour, marker; dark enough for a white ground, told apart without colour
LINES = {
    "polyanchor class": ('polyanchor, anchor="class"', "#12375c", "o"),
    "polyanchor data": ('polyanchor, anchor="data"', "#3b78b0", "s"),
    "polyanchor evaluate": ("polyanchor", "#12375c", "o"),
    "three products": ("the products alone", "#777777", "x"),
    "one full product": ("the products alone", "#777777", "x"),
    "pytorch-metric-learning": ("pytorch-metric-learning", "#c2571a", "^"),
    "open-metric-learning": ("open-metric-learning (ArcFace)", "#7a4a9e", "v"),
}
TITLES = {
    "B": "loss, items in a batch B",
    "C": "loss, classes C",
    "K": "loss, proxies per class K",
    "N": "evaluation, items N",
}


def series(rows: list[dict], axis: str) -> dict[str, list[tuple[int, float]]]:
    """First words of the subject -> points along one axis."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, figures in row["subjects"].items():
            first = next((words for words in LINES if name.startswith(words)), None)
            if row["case"]["along"] == axis and first is not None:
                found.setdefault(first, []).append((row["case"][axis], figures["median"]))
    return {name: sorted(points) for name, points in found.items()}


def main() -> None:
    """Four panels, seconds over one size each, both logarithmic."""
    rows = json.loads((ROOT / "benchmarks" / "results" / "growth.json").read_text(encoding="utf-8"))
    mpl.rcParams.update(
        {"svg.hashsalt": "polyanchor", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    # a white ground of its own: black labels would vanish on a dark page
    figure, axes = plt.subplots(1, 4, figsize=(11, 3.4), facecolor="white")
    for panel, (axis, title) in zip(axes, TITLES.items(), strict=True):
        for name, points in series(rows, axis).items():
            label, colour, marker = LINES[name]
            panel.plot(
                *zip(*points, strict=True), color=colour, marker=marker, markersize=4, linewidth=1.3, label=label
            )
        ticks = sorted({row["case"][axis] for row in rows if row["case"]["along"] == axis})
        panel.set(title=title, xscale="log", yscale="log")
        panel.set_xticks(ticks, [f"{tick / 1000:.2g}k" if tick >= 1_000 else str(tick) for tick in ticks], fontsize=8)
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.minorticks_off()
        panel.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes[0].set_ylabel("seconds, median")
    entries = {label: line for panel in axes for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    entries.pop("polyanchor", None)  # the same line as anchor="class"
    figure.legend(entries.values(), entries.keys(), loc="lower center", ncols=5, frameon=False, fontsize=8.5)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()

"""Stability of the measures in one figure: how well each tells methods apart, and what a smaller gallery does to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from polyanchor.analysis.figures import blank, write_figures
from polyanchor.experiments.stability import Spread, Stability

_COLOURS = ("#0072B2", "#E69F00", "#009E73")  # Okabe and Ito: told apart by every kind of eye
_KINDS = ("training seeds", "half of the queries", "half of the classes")


def draw(found: Stability, measures: Sequence[str], out: Path) -> tuple[Path, ...]:
    """Write ``stability.svg`` and ``stability.png``.

    Args:
        found: from :func:`polyanchor.experiments.stability.stability`.
        measures: which, from top to bottom.
        out: folder.
    """
    return write_figures({"stability": partial(_stability, found, measures)}, out)


def _stability(found: Stability, measures: Sequence[str]) -> Any:
    figure = blank(10, 1.6 + 0.42 * len(measures))
    axes = figure.subplots(1, 3)
    kinds = (found.over_seeds, found.over_queries, found.over_classes)
    _bars(axes[0], kinds, measures, "discrimination", "between methods / between repeats\n(more is better)")
    _bars(axes[1], kinds, measures, "agreement", "Kendall's tau of two repeats\n(more is better)")
    axes[1].set_yticklabels([])
    _lines(axes[2], found, measures)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=3, frameon=False, title="repeats: other")
    return figure


def _bars(axis: Any, kinds: Sequence[Mapping[str, Spread]], measures: Sequence[str], what: str, title: str) -> None:
    for number, (kind, colour, name) in enumerate(zip(kinds, _COLOURS, _KINDS, strict=True)):
        places = [row + 0.25 * (number - 1) for row in range(len(measures))]
        axis.barh(places, [getattr(kind[name], what) for name in measures], 0.22, color=colour, label=name)
    axis.set_yticks(range(len(measures)), measures)
    axis.set_ylim(len(measures) - 0.5, -0.5)  # the same in both panels, also where a bar is not defined
    axis.set_xlabel(title)
    axis.grid(axis="x", alpha=0.3)


def _lines(axis: Any, found: Stability, measures: Sequence[str]) -> None:
    shares = sorted(found.galleries, key=float)
    for number, name in enumerate(measures):
        known = [share for share in shares if name in found.galleries[share]]
        if not known or "1" not in known:
            continue
        whole = found.galleries["1"][name].mean
        axis.plot(
            [float(share) for share in known],
            [found.galleries[share][name].mean / whole for share in known],
            marker="osD^vP*X"[number % 8],
            label=name,
        )
    axis.set_xscale("log")
    axis.set_xticks([float(share) for share in shares], shares)
    axis.minorticks_off()
    axis.set_xlabel("share of the test items in the gallery")
    axis.set_ylabel("mean / mean in the whole gallery")
    if axis.lines:
        axis.legend(frameon=False, fontsize="small")
    axis.grid(axis="x", alpha=0.3)

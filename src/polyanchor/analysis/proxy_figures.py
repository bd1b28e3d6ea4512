"""Figures of a study of the proxies: how many centres the classes use, and whether these follow the sub-classes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from polyanchor.analysis.figures import blank, write_figures
from polyanchor.analysis.proxies import ProxyStudy

COLOURS = "#3b78b0", "#e2953b", "#9a9a9a"


def draw_study(study: ProxyStudy, folder: Path) -> tuple[Path, ...]:
    """Write ``centres`` and, where sub-classes are known, ``agreement``, each as ``.svg`` and ``.png``.

    Args:
        study: of at least one class.
        folder: where to; made if it is not there.

    Returns:
        The files.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    makers = {"centres": partial(_centres, study)}
    return write_figures(makers | ({"agreement": partial(_agreement, study)} if "ami" in study.means else {}), folder)


def _centres(study: ProxyStudy) -> Any:
    figure = blank(5.5, 3.2)
    axes, most = figure.add_subplot(), len(study.classes[0].counts)
    bins = [0.75 + step / 2 for step in range(2 * most)]  # half a centre wide, 1 and K in the middle of the ends
    numbers = {
        "of nearest centres, merged ones as one": [one.effective_distinct for one in study.classes],
        "of soft usage": [one.effective_soft for one in study.classes],
    }
    for (label, values), colour in zip(numbers.items(), COLOURS, strict=False):
        axes.hist(values, bins, label=label, color=colour, histtype="stepfilled", alpha=0.55)
    axes.set(xlabel=f"effective number of centres, of {most}", ylabel="classes", xlim=(0.5, most + 0.5))
    axes.yaxis.get_major_locator().set_params(integer=True)  # few classes: no quarter of one
    axes.legend(frameon=False)
    return figure


def _agreement(study: ProxyStudy) -> Any:
    """Bars over the classes, best first, and the mean over them as lines."""
    found = [one.agreement for one in study.classes if one.agreement]
    found.sort(key=lambda one: -one.ami)
    wide = min(12.0, 6 + 0.15 * len(found))
    figure = blank(wide, 5)
    upper, lower = figure.subplots(2, 1, sharex=True)
    measures = {
        upper: {"proxies": "ami", "k-means": "kmeans_ami"},
        lower: {"proxies": "purity", "k-means": "kmeans_purity", "by chance": "random_purity"},
    }
    for axes, bars in measures.items():
        for number, ((label, name), colour) in enumerate(zip(bars.items(), COLOURS, strict=False)):
            mean, share = study.means[name], 0.85 / len(bars)
            places = [place + (number - (len(bars) - 1) / 2) * share for place in range(len(found))]
            axes.bar(
                places, [getattr(one, name) for one in found], share, color=colour, label=f"{label}, mean {mean:.3f}"
            )
            axes.axhline(mean, color=colour, linewidth=0.8, linestyle=":")
        axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), fontsize=8)
    upper.set_ylabel("adjusted mutual information")
    lower.set(ylabel="purity", xlabel=f"{len(found)} classes with known sub-classes", xticks=[])
    return figure

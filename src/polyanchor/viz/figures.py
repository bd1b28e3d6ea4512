"""The style of all figures, and each as an SVG for pages and a PNG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from polyanchor._io import replacing
from polyanchor._optional import load

STYLE = {"svg.hashsalt": "polyanchor", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def write_figures(makers: Mapping[str, Callable[[], Any]], folder: Path) -> tuple[Path, ...]:
    """Draw figures and write each as ``.svg`` (without a date, so that equal numbers give equal files) and ``.png``.

    Args:
        makers: file name without suffix -> function that draws the figure, called with the style set.
        folder: made if it does not exist.

    Returns:
        The files.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    files = []
    with load("matplotlib", "report").rc_context(STYLE):
        for name, make in makers.items():
            figure = make()
            folder.mkdir(parents=True, exist_ok=True)
            for kind, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 150})):
                files.append(folder / f"{name}.{kind}")
                with replacing(files[-1]) as unfinished:
                    figure.savefig(unfinished, format=kind, **options)
    return tuple(files)


def blank(width: float, height: float) -> Any:
    """An empty figure, its size in inches, on white: black labels would vanish on a dark page."""
    return load("matplotlib.figure", "report").Figure(figsize=(width, height), layout="constrained", facecolor="white")

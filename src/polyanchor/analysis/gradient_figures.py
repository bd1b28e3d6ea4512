"""Figures of the gradients: against similarity, pull beside push, and how many stay usable during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from polyanchor.analysis.figures import blank, write_figures
from polyanchor.analysis.gradients import Curve
from polyanchor.analysis.similarity_gradient import SimilarityGradient

PULL, PUSH, ALL = "#0072b2", "#d55e00", "#333333"
LINES = (  # Okabe and Ito's colours, told apart by dashes too; those that may coincide grow thinner
    ("#56b4e9", "-", 6.0),
    ("#d55e00", "-", 3.5),
    ("#009e73", "-", 1.8),
    ("#cc79a7", "--", 1.6),
    ("#0072b2", "--", 1.6),
    ("#e69f00", "--", 1.6),
    ("#333333", ":", 1.6),
)
_DOTS = 4_000  # more would make a large file and no other picture


def draw_gradients(
    found: SimilarityGradient,
    curves: Mapping[str, Curve],
    epochs: Sequence[Mapping[str, Any]],
    folder: Path,
) -> tuple[Path, ...]:
    """Write ``similarity``, ``curves`` and, if epochs were measured, ``capacity``, each as ``.svg`` and ``.png``.

    Args:
        found: of one batch.
        curves: name of a loss -> its curve, at most seven.
        epochs: rows of :class:`~polyanchor.analysis.capacity.Capacity`, or none.
        folder: where to; made if it is not there.

    Returns:
        The files.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    makers = {"similarity": partial(_similarity, found), "curves": partial(_curves, curves)}
    return write_figures(makers | ({"capacity": partial(_capacity, epochs)} if epochs else {}), folder)


def _similarity(found: SimilarityGradient) -> Any:
    """A dot for each item and class, at the cosine of the class's nearest proxy; between items one for each pair."""
    figure = blank(7.5, 3.2)
    values, cosines, own = len(found.values) * found.values, found.similarity, found.own
    if found.targets is found.directions:
        seen = torch.eye(len(values), dtype=torch.bool).logical_not()
    else:
        classes = int(found.columns.max()) + 1
        values = len(values) * found.by_class()
        cosines = cosines.unflatten(1, (classes, -1)).amax(dim=2)
        own = found.labels[:, None] == torch.arange(classes)
        seen = torch.ones_like(own)
    panels = (("pull: -B dL/ds, own class", own, -1, PULL), ("push: B dL/ds, other classes", ~own, 1, PUSH))
    for axes, (label, mask, sign, colour) in zip(figure.subplots(1, 2), panels, strict=True):
        x, y = cosines[mask & seen], sign * values[mask & seen]
        step, size = -(-len(x) // _DOTS), 6 if len(x) > 500 else 14
        axes.scatter(x[::step], y[::step], s=size, color=colour, alpha=0.5, linewidths=0, rasterized=True)
        axes.set(xlabel="cosine", ylabel=label)
        axes.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    return figure


def _curves(curves: Mapping[str, Curve]) -> Any:
    """Both as a share of the largest value of the curve: the losses differ in scale."""
    figure = blank(8.2, 3.2)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, part in zip(panels, ("pull", "push"), strict=True):
        for (name, curve), (colour, dashes, width) in zip(curves.items(), LINES, strict=False):
            values = getattr(curve, part)
            largest = max(map(abs, values)) or 1.0
            shares = [value / largest for value in values]
            axes.plot(curve.own, shares, dashes, color=colour, label=name, linewidth=width)
        axes.set(xlabel="similarity to the own class (cosine)", title=part)
    panels[0].set(ylabel="share of its largest value", ylim=(-0.05, 1.05))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def _capacity(epochs: Sequence[Mapping[str, Any]]) -> Any:
    figure = blank(7.5, 3.2)
    left, right = figure.subplots(1, 2)
    numbers = [row["epoch"] for row in epochs]
    marker = "o" if len(numbers) < 25 else ""
    for name, label, colour, dashes in (
        ("usable", "whole gradient", ALL, "-"),
        ("usable_pull", "pull", PULL, "--"),
        ("usable_push", "push", PUSH, "-."),
    ):
        shares = [row[name] for row in epochs]
        left.plot(numbers, shares, dashes, color=colour, label=label, marker=marker, markersize=3)
    left.set(xlabel="epoch", ylabel="share of items with a usable gradient", ylim=(-0.03, 1.03))
    low, middle, high = zip(*(row["quantiles"] for row in epochs), strict=True)
    right.fill_between(numbers, low, high, color=ALL, alpha=0.2, linewidth=0, label="10 to 90 % of the items")
    right.plot(numbers, middle, color=ALL, label="median", marker=marker, markersize=3)
    right.set(xlabel="epoch", ylabel="length of the gradient, times B", ylim=(0, None))
    for axes in (left, right):
        axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), fontsize=8)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure

"""Scatter plot of classes and their proxies on two principal axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from polyanchor._optional import load
from polyanchor.functional import unit_rows
from polyanchor.viz.sheets import write_lines

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE, LEGEND, RIM = 480, 200, 30
"""Pixels: side of the plane, width of the legend, rim around the points."""
COLOURS = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7f7f7f", "#8a8200"
_SCALE = 2  # drawn larger and reduced: PIL's circles have no smooth edges


def principal_axes(rows: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean and first two principal axes, deterministic: the largest component of an axis is positive.

    Args:
        rows: ``(N, D)`` floating, D at least 2.

    Returns:
        ``(D,)`` mean, ``(D, 2)`` axes, and the share of the variance along them.

    Example:
        >>> mean, axes, share = principal_axes(torch.tensor([[0.0, 0.0, 1.0], [4.0, 0.0, 1.0], [2.0, 1.0, 1.0]]))
        >>> (axes.abs() > 0.5).int().tolist(), round(share, 3)
        ([[1, 0], [0, 1], [0, 0]], 1.0)
    """
    rows = rows.double()
    mean = rows.mean(dim=0)
    _, lengths, axes = torch.linalg.svd(rows - mean, full_matrices=False)
    top = axes[:2] * axes[:2].gather(1, axes[:2].abs().argmax(dim=1, keepdim=True)).sign()
    square = lengths.square()
    return mean, top.T, float(square[:2].sum() / square.sum().clamp_min(1e-300))


def plane(vectors: Tensor, numbers: Tensor, names: Sequence[str], proxies: Tensor | None, *, title: str) -> Image:
    """Unit vectors as points and proxies as diamonds, coloured by class, on the first two principal axes of both.

    Args:
        vectors: ``(N, D)`` floating.
        numbers: ``(N,)`` int64, class numbers in ``[0, C)``; C at most 8.
        names: of the C classes.
        proxies: ``(C, K, D)``, or None.
        title: a line above; the share of the variance that the plane shows is appended.

    Returns:
        RGB image.
    """
    points = unit_rows(vectors.double())
    centres = points.new_zeros(0, points.shape[1]) if proxies is None else unit_rows(proxies.double().flatten(0, 1))
    mean, axes, share = principal_axes(torch.cat([points, centres]))
    flat, flat_centres = (points - mean) @ axes, (centres - mean) @ axes
    everything = torch.cat([flat, flat_centres])
    low = everything.min(dim=0).values
    extent = float((everything.max(dim=0).values - low).max()) or 1.0  # one scale for both axes: angles stay
    pil, size = load("PIL.Image", "train"), _SCALE
    drawn = pil.new("RGB", ((SIDE + LEGEND) * size, (SIDE + RIM) * size), "white")
    draw = load("PIL.ImageDraw", "train").Draw(drawn)
    write_lines(drawn, (8 * size, 8 * size), [f"{title}: {share:.0%} of the variance"], scale=size)

    def pixel(spot: Tensor) -> tuple[float, float]:
        x, y = ((spot - low) / extent * (SIDE - 2 * RIM) + RIM).tolist()
        return x * size, (SIDE + RIM - y) * size

    for spot, number in zip(flat, numbers.tolist(), strict=True):
        _disc(draw, pixel(spot), 3 * size, COLOURS[number])
    per_class = 0 if proxies is None else proxies.shape[1]
    for row, spot in enumerate(flat_centres):
        _diamond(draw, pixel(spot), 7 * size, COLOURS[row // per_class])
    for number, name in enumerate(names):
        top = (RIM + 20 + 20 * number) * size
        _disc(draw, ((SIDE + 8) * size, top + 8 * size), 5 * size, COLOURS[number])
        write_lines(drawn, ((SIDE + 20) * size, top), [name[:24]], scale=size)
    return drawn.resize((SIDE + LEGEND, SIDE + RIM), pil.Resampling.LANCZOS)


def _disc(draw: Any, spot: tuple[float, float], radius: float, colour: str) -> None:
    x, y = spot
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _diamond(draw: Any, spot: tuple[float, float], radius: float, colour: str) -> None:
    x, y = spot
    corners = [(x - radius, y), (x, y - radius), (x + radius, y), (x, y + radius)]
    draw.polygon(corners, fill=colour, outline="black", width=2)

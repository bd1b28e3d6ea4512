"""Rows as a table for the terminal: a line for each subject, its ratio to the reference, its target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HEAD = ["question", "case", "subject", "median", "quartiles", "ratio", "target", ""]


def lines(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The cells of every line, targets beside the subject that they are about."""
    found = []
    for row in rows:
        for name, figures in row["subjects"].items():
            spread = f"{shown(figures['q1'])} to {shown(figures['q3'])}"
            ratio = f"{figures['ratio']:.2f}" if "ratio" in figures else ""
            cells = [row["question"], case(row), name, f"{shown(figures['median'])} {row['unit']}", spread, ratio]
            first, *others = [aim for aim in row["targets"] if aim["subject"] == name] or [None]
            found.append(cells + judgement(first, row))
            found += [[""] * len(cells) + judgement(aim, row) for aim in others]
    return found


def case(row: dict[str, Any]) -> str:
    """``B 180, C 11,318``."""
    return ", ".join(
        f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" for key, value in row["case"].items()
    )


def judgement(aim: dict[str, Any] | None, row: dict[str, Any]) -> list[str]:
    """``<= 1.0 x three products (0.83)``, ``met``."""
    if aim is None:
        return ["", ""]
    sign, limit = ("<=", aim["at_most"]) if "at_most" in aim else (">=", aim["at_least"])
    unit = f"x {aim['of']}" if aim["of"] else row["unit"]
    return [f"{sign} {limit:g} {unit} ({shown(aim['value'])})", "met" if aim["met"] else "NOT MET"]


def shown(value: float) -> str:
    """Three digits, without an exponent."""
    return (
        f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 0.01 or value == 0 else f"{value:.5f}"
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """All lines under one head, padded; words of the head and of names to the left, numbers to the right."""
    cells = [HEAD, *lines(rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD))]
    left = {0, 1, 2, 6, 7}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )

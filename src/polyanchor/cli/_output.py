"""Results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def note(line: str) -> None:
    """One line about what is being done."""
    print(line, file=sys.stderr, flush=True)


def silent(line: str) -> None:
    """In the place of :func:`note`, where another process says it."""


def print_json(content: Mapping[str, Any]) -> None:
    """For machines."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(content, indent=1)
    print(text)


NARROW = 40
"""Columns below which a table is a list: one cell a line."""


def print_whole(table: Table, *, fold: bool = False) -> None:
    """A table of which nothing is left out, at its full width; below :data:`NARROW` columns one cell a line.

    Args:
        table: of numbers or text.
        fold: whether the cells are sentences, which may be folded to the width of the terminal.
    """
    console = Console()
    if console.width < NARROW:
        heads = [" ".join(str(column.header).split()) for column in table.columns]
        for row in zip(*(column.cells for column in table.columns), strict=True):
            for head, cell in zip(heads, row, strict=True):
                if str(cell):
                    console.print(Text(f"{head} {cell}".strip()), soft_wrap=True)
            console.print()
        return
    needed = console.measure(table, options=console.options.update(max_width=1_000)).maximum
    Console(width=console.width if fold else max(console.width, needed)).print(table)


_WITHOUT_CUTOFF = {"MAP@R": "map@r", "R-precision": "r_precision", "MRR": "mrr"}


def print_report(report: Mapping[str, Any], *, title: str) -> None:
    """The measures as a table: a row per cut-off, then those that have none.

    Args:
        report: as :func:`polyanchor.training.run_folder.as_json` makes it.
        title: of the table.
    """
    means = report["means"]
    cutoffs = [name.partition("@")[2] for name in means if name.startswith("recall@")]
    console = Console()
    console.print(Text(title))  # as a table's own title it would be folded to the table's width
    table = Table()
    for column in ("k", "recall@k", "precision@k", "nDCG@k"):
        table.add_column(column, justify="right")
    for k in cutoffs:
        table.add_row(k, *(_number(means[f"{name}@{k}"]) for name in ("recall", "precision", "ndcg")))
    print_whole(table)
    rest = [f"{words} {_number(means[name])}" for words, name in _WITHOUT_CUTOFF.items()]
    console.print(("\n" if console.width < NARROW else "   ").join(rest), soft_wrap=console.width < NARROW)
    undefined = f", {report['undefined']} of them without a match to find (left out)" if report["undefined"] else ""
    console.print(f"{report['queries']} queries{undefined}, each searched among {report['gallery']} items")
    for line in report["notes"]:
        console.print(f"note: {line}", soft_wrap=True, markup=False)
    if "sub" in report:
        print_report(report["sub"], title="the same search judged by the known finer classes")


def print_run(folder: Path, *, as_json: bool) -> None:
    """The results of a finished run."""
    from polyanchor.training.run_folder import RunFolder

    results = RunFolder(folder).read_results()
    if as_json:
        print_json(results)
        return
    title = f"{folder}: test classes, epoch {results['epoch']} ({results['chosen_by']})"
    print_report(results["test"], title=title)
    note(f"model and results are in {folder}")


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"

"""The table of a comparison on stdout."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from polyanchor.experiments.table import row_of, shown_measures
from polyanchor.experiments.verdict import Verdict


def print_verdict(verdict: Verdict) -> None:
    """A row a method, best first, and what the columns mean."""
    shown = shown_measures(verdict)
    console = Console()
    console.print(Text(f"{verdict.source}: test classes, hyper-parameters from {verdict.trials} trials each"))
    table = Table()
    for number, column in enumerate(
        ["method", "runs", *shown, "difference", "p seeds", "p queries", "p classes", "s/run"]
    ):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number == 0)
    for line in verdict.lines:
        table.add_row(*map(Text, row_of(line, verdict, shown)))
    console.print(table)
    console.print(
        f"± is the 95 % interval over seeds. The difference in {verdict.select} is to {verdict.against}; p of no "
        "difference, corrected for the number of methods (Holm): over seeds (paired t), queries, classes (bootstrap).",
        soft_wrap=True,
    )
    for text in verdict.notes:
        console.print(f"note: {text}", soft_wrap=True, markup=False)

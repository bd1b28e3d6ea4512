"""The tables of a comparison on stdout."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from polyanchor.cli._output import print_whole
from polyanchor.experiments.table import measures_of, shown_measures, tests_of
from polyanchor.experiments.verdict import Verdict


def print_verdict(verdict: Verdict) -> None:
    """The measures, best method first; then the tests against the reference."""
    shown, console = shown_measures(verdict), Console()
    searched = f"hyper-parameters from {verdict.trials} trials each" if verdict.trials else "nothing searched"
    console.print(f"{verdict.source}: test classes, {searched}", soft_wrap=True, markup=False, highlight=False)
    _print(["method", "runs", *shown, "s/run"], [measures_of(line, shown) for line in verdict.lines])
    tested = [line for line in verdict.lines if line.tests]
    if tested:
        difference = f"{verdict.select} less {verdict.against}"
        _print(
            ["method", difference, "p seeds", "p queries", "p classes"], [tests_of(line, verdict) for line in tested]
        )
    console.print(
        "± is half of the 95 % interval over seeds. p: of no difference, corrected for the number of methods (Holm), "
        "over seeds (paired t), queries and classes (bootstrap); <= where no resample came out on the other side and p "
        "may be much smaller, - where there is too little to tell.",
        soft_wrap=True,
    )
    for line in verdict.notes:
        console.print(f"note: {line}", soft_wrap=True, markup=False)


def _print(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for number, column in enumerate(head):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    print_whole(table)

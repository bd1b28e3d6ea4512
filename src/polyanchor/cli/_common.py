"""Results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from polyanchor._errors import InputError
from polyanchor.compare.significance import ComparisonResult
from polyanchor.compare.tables import measures_of, shown_measures, tests_of


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
        report: as :func:`polyanchor.runs.folder.as_json` makes it.
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
    from polyanchor.runs.folder import RunFolder

    results = RunFolder(folder).read_results()
    if as_json:
        print_json(results)
        return
    title = f"{folder}: test classes, epoch {results['epoch']} ({results['chosen_by']})"
    print_report(results["test"], title=title)
    note(f"model and results are in {folder}")


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def changed(
    settings: Sequence[str] | None, *, on_bad_image: str, run: Path | None = None, data: str = ""
) -> tuple[str, ...]:
    """The ``--set`` options, followed by what ``--on-bad-image`` stands for.

    Args:
        settings: as they were given.
        on_bad_image: likewise; refused where the data of ``run``, or the ``data`` in their place, are vectors.
        run: folder of a run, if there is one.
        data: another source.

    Example:
        >>> changed(["run.epochs=3"], on_bad_image="skip")
        ('run.epochs=3', 'data.on_bad_image=skip')
    """
    changes = (*(settings or ()), *([f"data.on_bad_image={on_bad_image}"] if on_bad_image else []))
    if on_bad_image and data:
        require_images([data], on_bad_image)
    elif on_bad_image and run is not None:
        from polyanchor.runs.folder import RunFolder

        require_images([RunFolder(run).read_config(changes).data.source], on_bad_image)
    return changes


def require_images(sources: Iterable[str], on_bad_image: str) -> None:
    """Refuse ``--on-bad-image`` where no source holds images."""
    named = list(sources)
    if on_bad_image and named and all(one.startswith("features:") for one in named):
        raise InputError(f"--on-bad-image is about images, and {named[0]} holds vectors; leave it out")


def refuse_unused(data: Sequence[str], root: Path | None, allow_partial: bool) -> None:
    """Refuse ``--root`` without a benchmark, and ``--allow-partial`` without one or a list, among the sources."""
    from polyanchor.datasets.sources import BENCHMARKS

    kinds = {one.partition(":")[0] for one in data}
    for option, given, takers in (
        ("--root", root, BENCHMARKS),
        ("--allow-partial", allow_partial, (*BENCHMARKS, "csv:FILE")),
    ):
        if given and not kinds & {taker.partition(":")[0] for taker in takers}:
            raise InputError(f"{option} is for {', '.join(takers)}, got {' '.join(data) or 'no data'}; leave it out")


def print_verdict(verdict: ComparisonResult) -> None:
    """The measures, best method first; then the tests against the reference."""
    shown, console = shown_measures(verdict), Console()
    searched = f"hyper-parameters from {verdict.trials} trials each" if verdict.trials else "nothing searched"
    console.print(f"{verdict.source}: test classes, {searched}", soft_wrap=True, markup=False, highlight=False)
    _print(["method", "runs", *shown, "s/run"], [measures_of(line, shown) for line in verdict.lines])
    tested = [line for line in verdict.lines if line.tests]
    if tested:
        difference = f"{verdict.monitor} less {verdict.reference}"
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


INDEX: TypeAlias = Annotated[str, typer.Argument(metavar="INDEX", help="The index's folder; its collection's name.")]
STORE: TypeAlias = Annotated[
    str, typer.Option(metavar="qdrant:URL", help="Where the index is, if not in a folder: qdrant:http://HOST:6333.")
]
MODEL: TypeAlias = Annotated[
    Path | None,
    typer.Option(exists=True, file_okay=False, help="Folder of the index's model, if it is no longer where it was."),
]
ON_BAD: TypeAlias = Annotated[
    str, typer.Option(help="stop or skip: what an unreadable image does.", show_default="stop")
]
ROOT: TypeAlias = Annotated[
    Path | None, typer.Option(help="Folder that holds the benchmark data sets.", show_default="data")
]
PARTIAL: TypeAlias = Annotated[
    bool, typer.Option("--allow-partial", help="Accept a copy of a data set that is not complete.")
]
JSON: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SEARCH_EFFORT: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1, help="How far hnsw (candidates) or ivf (lists) looks; more finds more.", show_default="fits the size"
    ),
]


def say_skipped(skipped: Sequence[str]) -> None:
    """The note about images that could not be read."""
    from polyanchor.runs.evaluate import left_out

    if skipped:
        note(left_out(skipped))


def from_here(path: str | None) -> str:
    """A path as one would type it here.

    Example:
        >>> from_here(str(Path.cwd() / "photos" / "1.jpg")), from_here("digits#0/1"), from_here(None)
        ('photos/1.jpg', 'digits#0/1', '')
    """
    return "" if path is None else path.removeprefix(f"{Path.cwd()}{os.sep}")

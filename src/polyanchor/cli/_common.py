"""Results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer

from polyanchor._errors import InputError
from polyanchor.cli._flags import settings_of

NARROW = 40
"""Columns below which a table is printed as a list: one cell a line."""
_WITHOUT_CUTOFF = {"MAP@R": "map@r", "R-precision": "r_precision", "MRR": "mrr"}

INDEX: TypeAlias = Annotated[str, typer.Argument(metavar="INDEX", help="The index's folder; its collection's name.")]
STORE: TypeAlias = Annotated[
    str, typer.Option(metavar="qdrant:URL", help="Where the index is, if not in a folder: qdrant:http://HOST:6333.")
]
MODEL: TypeAlias = Annotated[
    Path | None,
    typer.Option(exists=True, file_okay=False, help="Folder of the index's model, if it is no longer where it was."),
]
CONFIG: TypeAlias = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, metavar="FILE.toml", help="Configuration file.")
]
ON_BAD: TypeAlias = Annotated[
    Literal["stop", "skip"] | None, typer.Option(help="What an unreadable image does.", show_default="stop")
]
ROOT: TypeAlias = Annotated[
    Path | None, typer.Option(help="Folder that holds the benchmark data sets.", show_default="data")
]
PARTIAL: TypeAlias = Annotated[
    bool, typer.Option("--allow-partial", help="Accept a copy of a data set that is not complete.")
]
RUN: TypeAlias = Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A finished run's folder.")]
JSON: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SEARCH_EFFORT: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1, help="How far hnsw (candidates) or ivf (lists) looks; more finds more.", show_default="fits the size"
    ),
]


def note(line: str) -> None:
    """A progress line."""
    print(line, file=sys.stderr, flush=True)


def silent(line: str) -> None:
    """Discard a progress line that another process prints."""


def print_json(content: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """Print JSON, with escapes for letters that the encoding lacks."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(content, indent=1)
    print(text)


def print_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, align: str = "", simple: bool = False, fold: bool = False
) -> None:
    """Print a table at its full width, without cutting cells; below :data:`NARROW` columns one cell a line.

    Args:
        head: names of the columns; all empty: a table without a head.
        rows: cells, which are printed as they are.
        align: ``l`` or ``r`` for each column; empty: the first is aligned on the left, the others on the right.
        simple: a line below the head alone, in place of a box.
        fold: fold the cells to the width of the terminal, where they are sentences.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows, console = list(rows), Console()
    if console.width < NARROW:
        for row in rows:
            lines = (f"{' '.join(name.split())} {cell}".strip() for name, cell in zip(head, row, strict=True) if cell)
            print("\n".join(lines), end="\n\n")
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False) if simple else Table(show_header=any(head))
    for name, side in zip(head, align or "l" + "r" * (len(head) - 1), strict=True):
        table.add_column(name, justify="left" if side == "l" else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    needed = console.measure(table, options=console.options.update(max_width=1_000)).maximum
    Console(width=console.width if fold else max(console.width, needed)).print(table)


def print_notes(notes: Iterable[str]) -> None:
    """A line for each note."""
    for line in notes:
        print(f"note: {line}")


def print_report(report: Mapping[str, Any], *, title: str) -> None:
    """Print retrieval measures: a row per cut-off, then those that have none.

    Args:
        report: as :func:`polyanchor.runs.folder.as_json` makes it.
        title: of the table.
    """
    means = report["means"]
    cutoffs = [name.partition("@")[2] for name in means if name.startswith("recall@")]
    print(title)
    print_table(
        ("k", "recall@k", "precision@k", "nDCG@k"),
        [[k, *(_number(means[f"{name}@{k}"]) for name in ("recall", "precision", "ndcg"))] for k in cutoffs],
        align="rrrr",
    )
    rest = [f"{words} {_number(means[name])}" for words, name in _WITHOUT_CUTOFF.items()]
    print(*rest, sep="\n" if shutil.get_terminal_size().columns < NARROW else "   ")
    undefined = f", {report['undefined']} of them without a match to find (left out)" if report["undefined"] else ""
    print(f"{report['queries']} queries{undefined}, each searched among {report['gallery']} items")
    print_notes(report["notes"])
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
    print_before(results)
    note(f"model and results are in {folder}")


def print_before(results: Mapping[str, Any]) -> None:
    """Print the features before training beside a run's own measures, and which are better."""
    from polyanchor.runs.before import before_table, compared_to_before

    names, rows = before_table(results)
    if rows:
        head = ["before training", *(name.replace("ndcg", "nDCG").replace("map@r", "MAP@R") for name in names)]
        print_table(head, [[name, *map(_number, values)] for name, values in rows])
        print(compared_to_before(results))


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def changes_of(
    context: typer.Context, *, on_bad_image: str | None, run: Path | None = None, data: str = ""
) -> tuple[str, ...]:
    """The settings of a command on a finished run, ``--on-bad-image`` among them.

    Args:
        context: of a :class:`~polyanchor.cli._flags.ConfigCommand`.
        on_bad_image: refused where the data of ``run``, or the ``data`` in their place, are vectors.
        run: folder of a run, if there is one.
        data: full name of another source.
    """
    changes = settings_of(context, {"data.on_bad_image": on_bad_image})
    if on_bad_image and data:
        require_images([data], on_bad_image)
    elif on_bad_image and run is not None:
        from polyanchor.runs.folder import RunFolder

        require_images([RunFolder(run).read_config(changes).data.source], on_bad_image)
    return changes


def require_images(sources: Sequence[str], on_bad_image: str | None) -> None:
    """Refuse ``--on-bad-image`` where no source holds images."""
    if on_bad_image and sources and all(source.startswith("features:") for source in sources):
        raise InputError(f"--on-bad-image is about images, and {sources[0]} holds vectors; leave it out")


def refuse_unused(data: Sequence[str], root: Path | None, allow_partial: bool) -> None:
    """Refuse ``--root`` without a benchmark, and ``--allow-partial`` without one or a list, among the sources."""
    from polyanchor.datasets.sources import BENCHMARKS

    kinds = {source.partition(":")[0] for source in data}
    for option, value, takers in (
        ("--root", root, BENCHMARKS),
        ("--allow-partial", allow_partial, (*BENCHMARKS, "csv:FILE")),
    ):
        if value and not kinds & {taker.partition(":")[0] for taker in takers}:
            raise InputError(f"{option} is for {', '.join(takers)}, got {' '.join(data) or 'no data'}; leave it out")


def note_skipped(skipped: Sequence[str]) -> None:
    """Report the images that could not be read."""
    from polyanchor.runs.evaluate import left_out

    if skipped:
        note(left_out(skipped))


def relative_to_cwd(path: str | None) -> str:
    """A path as one would type it in the working directory.

    Example:
        >>> relative_to_cwd(str(Path.cwd() / "photos" / "1.jpg")), relative_to_cwd("digits#0/1"), relative_to_cwd(None)
        ('photos/1.jpg', 'digits#0/1', '')
    """
    return "" if path is None else path.removeprefix(f"{Path.cwd()}{os.sep}")

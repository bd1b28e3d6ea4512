"""``polyanchor report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyanchor.cli._common import JSON, ON_BAD, RUN, changes_of, note, print_json


def report(
    context: typer.Context,
    run: RUN,
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="RUN/report.html")] = None,
    split: Annotated[str, typer.Option(help="Whose items are the queries: test, validation or train.")] = "test",
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="A class to show, by name or id; may be given again."),
    ] = None,
    queries: Annotated[int, typer.Option(min=0, help="Worst, and typical, queries to show.")] = 8,
    centres: Annotated[
        int | None,
        typer.Option(min=0, help="Classes whose local centres are shown, where no --class trained.", show_default="4"),
    ] = None,
    points: Annotated[int, typer.Option(min=1, max=50_000, help="Items in the map, at most.")] = 10_000,
    tsne: Annotated[bool, typer.Option(help="Compute t-SNE for the map: half a minute for 10,000 items.")] = True,
    on_bad_image: ON_BAD = None,
    as_json: JSON = False,
) -> None:
    """Write a run as one HTML page: measures, curves, queries, a map, confusions, local centres.

    Example: polyanchor report runs/photos

    The page needs no network and opens in any browser. The run's data, images, batches and run keys are flags.
    """
    from dataclasses import asdict

    from polyanchor.report.write import write_report
    from polyanchor.runs.folder import without_nan

    written = write_report(
        run,
        out or run / "report.html",
        split=split,
        classes=classes or (),
        queries=queries,
        centres=centres,
        points=points,
        tsne=tsne,
        settings=changes_of(context, on_bad_image=on_bad_image, run=run),
        announce=note,
    )
    if as_json:
        print_json(without_nan(asdict(written) | {"path": str(written.path)}))
        return
    print(written.path)
    note(f"{written.size / 1e6:.1f} MB: {written.queries:,} queries, {written.points:,} points in the map")

"""``polyanchor report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyanchor._errors import InputError
from polyanchor.cli._common import changed


def report(
    run: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A finished run's folder.")],
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
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a data, images or run key."),
    ] = None,
    on_bad_image: Annotated[str, typer.Option(help="stop or skip: what an unreadable image does.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the file and the measures as JSON.")] = False,
) -> None:
    """Write a run as one HTML page: measures, curves, queries, a map, confusions, local centres.

    Example: polyanchor report runs/photos

    The page needs no network and opens in any browser.
    """
    from dataclasses import asdict

    from polyanchor.cli._common import note, print_json
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
        settings=changed(settings, on_bad_image=on_bad_image, run=run),
        announce=note,
    )
    if as_json:
        print_json(without_nan(asdict(written) | {"path": str(written.path)}))
        return
    print(written.path)
    note(f"{written.size / 1e6:.1f} MB: {written.queries:,} queries, {written.points:,} points in the map")


def explore(
    run: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A finished run's folder.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write.", show_default="RUN/explore")] = None,
    split: Annotated[str, typer.Option(help="Of the run's data: test, gallery, train, validation or all.")] = "test",
    start: Annotated[
        bool | None,
        typer.Option("--start/--no-start", help="Start embedding-atlas.", show_default="if installed"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a data, images or run key."),
    ] = None,
    on_bad_image: Annotated[str, typer.Option(help="stop or skip: what an unreadable image does.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print files and commands as JSON.")] = False,
) -> None:
    """Write vectors, thumbnails and what is known of each item for viewers, and start one.

    Example: polyanchor explore runs/photos --no-start

    The table is opened by embedding-atlas and by Hugging Face's datasets, the folder beside it by TensorBoard's
    projector; the commands are printed.
    """
    import shlex
    import subprocess
    from contextlib import suppress

    from polyanchor.cli._common import note, print_json
    from polyanchor.explore.explore import ATLAS, explore_run, installed

    changes = changed(settings, on_bad_image=on_bad_image, run=run)
    program = installed(ATLAS)
    if start and program is None:
        raise InputError(f"--start needs {ATLAS}, which is not installed; leave it out, or: pip install {ATLAS}")
    found = explore_run(run, out or run / "explore", split=split, settings=changes)
    if found.skipped:
        note(f"{len(found.skipped)} image(s) could not be read and were left out, first {found.skipped[0]}")
    if as_json:
        written = {"parquet": str(found.parquet), "projector": str(found.projector), "items": found.items}
        print_json(written | {"commands": {name: shlex.join(words) for name, words in found.commands.items()}})
    else:
        print(f"{found.items} items are in {found.parquet}; look at them with either of")
        for words in found.commands.values():
            print(f"  {shlex.join(words)}", flush=True)  # before the viewer says something
    if program is None:
        note(f"{ATLAS} is not installed; run, in an environment of its own: pip install {ATLAS}")
    elif start is not False:
        note("starting embedding-atlas; Ctrl-C ends it")
        with suppress(KeyboardInterrupt):
            subprocess.run([program, *found.commands[ATLAS][1:]], check=False)

"""``polyanchor evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyanchor._errors import InputError
from polyanchor.cli._settings import changed


def evaluate(
    target: Annotated[
        Path, typer.Argument(exists=True, help="A run's folder, or a file written by `polyanchor embed`.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a data, images or run key."),
    ] = None,
    data: Annotated[str, typer.Option(help="Another data source; all of it is searched.")] = "",
    part: Annotated[
        str, typer.Option(help="Of the run's own data, or of a file with parts: test (the default), train, validation.")
    ] = "",
    k: Annotated[
        list[int] | None,
        typer.Option("--k", min=1, help="Cut-off; may be given again."),
    ] = None,
    on_bad_image: Annotated[str, typer.Option(help="stop or skip: what an unreadable image does.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the measures as JSON.")] = False,
) -> None:
    """Measure retrieval: recall@k, precision@k, nDCG@k, MRR, R-precision, MAP@R.

    Example: polyanchor evaluate runs/photos --k 1 --k 10

    Each item is searched among all others, itself left out; a data set with a gallery is searched in that. Other
    images: polyanchor evaluate runs/photos --data folder:other
    """
    from polyanchor.cli._output import print_json, print_report
    from polyanchor.training.reuse import evaluate_file, evaluate_run
    from polyanchor.training.run_folder import as_json as to_json

    cutoffs = tuple(k or ())
    if target.is_dir():
        changes = changed(settings, on_bad_image=on_bad_image, run=target, data=data)
        report = evaluate_run(target, data=data, part=part, settings=changes, k=cutoffs)
    else:
        given = {"--data": data, "--set": settings, "--on-bad-image": on_bad_image}
        for option in (name for name, value in given.items() if value):
            raise InputError(f"{option} needs a run's folder, and {target} is a file of vectors; leave {option} out")
        report = evaluate_file(target, part=part, k=cutoffs)
    if as_json:
        print_json(to_json(report))
    else:
        what = data or f"{part or 'test'} classes"
        print_report(to_json(report), title=f"{target}: {what}" if target.is_dir() else f"{target}")

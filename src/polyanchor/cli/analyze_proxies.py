"""``polyanchor analyze proxies``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from polyanchor.cli._settings import changed

MEANS = {
    "in_use": "centres that are nearest to some item",
    "effective_hard": "effective number, nearest centre",
    "effective_soft": "effective number, soft usage",
    "distinct": "centres, merged ones as one",
    "effective_distinct": "effective number, nearest centre, merged ones as one",
    "spread": "angle between two centres in degrees",
    "ami": "AMI with sub-classes",
    "kmeans_ami": "AMI of k-means",
    "purity": "purity in sub-classes",
    "kmeans_purity": "purity of k-means",
    "random_purity": "purity by chance",
}


def proxies(
    run: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A finished run's folder.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write.", show_default="RUN/analysis/proxies")] = None,
    part: Annotated[str, typer.Option(help="train or test: items of the classes that trained.")] = "train",
    classes: Annotated[
        int, typer.Option(min=0, help="Classes to show: half with most centres in use, half with fewest.")
    ] = 4,
    merged_above: Annotated[
        float | None, typer.Option(help="Cosine above which two centres count as merged.", show_default="0.95")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a data, images or run key."),
    ] = None,
    on_bad_image: Annotated[str, typer.Option(help="stop or skip: what an unreadable image does.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print what proxies.json holds.")] = False,
) -> None:
    """Show the local centres of the classes: how many are in use, which merged, what they hold.

    Example: polyanchor analyze proxies runs/photos

    Where the data has known finer classes, the centres are compared with them, with k-means and with chance.
    """
    from polyanchor.analysis.proxy_report import report_proxies
    from polyanchor.cli._output import note, print_json

    folder = out or run / "analysis" / "proxies"
    found = report_proxies(
        run,
        folder,
        part=part,
        settings=changed(settings, on_bad_image=on_bad_image, run=run),
        classes=classes,
        merged_above=merged_above,
    )
    if as_json:
        print_json(found)
    else:
        _print(found)
    sheets = any("sheet" in one for one in found["classes"])
    note(f"proxies.json{', figures and contact sheets' if sheets else ' and figures'} are in {folder}")


def _print(found: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from polyanchor.cli._output import print_whole

    console, classes = Console(), found["classes"]
    console.print(
        f"{found['run']}: {found['items']} {found['part']} items, {len(classes)} classes, "
        f"{found['proxies_per_class']} centres each",
        markup=False,
        soft_wrap=True,
    )
    means = Table("mean over the classes", "")
    means.columns[1].justify = "right"
    for name, words in MEANS.items():
        if name in found["means"]:
            means.add_row(words, _number(found["means"][name]))
    print_whole(means)
    table = Table("class")
    for column in ("items", "in use", "distinct", "effective", "AMI", "purity"):
        table.add_column(column, justify="right")
    shown = [one for one in classes if "nearest" in one]
    for one in sorted(shown, key=lambda one: -one["effective_distinct"]):
        agreement = one["agreement"] or {}
        cells = one["distinct"], one["effective_distinct"], agreement.get("ami"), agreement.get("purity")
        table.add_row(Text(one["name"]), str(sum(one["counts"])), str(one["in_use"]), *map(_number, cells))
    if shown:
        print_whole(table)
    for line in found["notes"]:
        console.print(f"note: {line}", soft_wrap=True, markup=False)


def _number(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"

"""``polyanchor analyze gradients``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from polyanchor.cli._settings import changed

PARTS = {"all": "gradient", "pull": "pull", "push": "push"}
OTHERS = {
    "own_class": "of another item of its class",
    "all_own_class": "of all of these together",
    "other_classes": "of an item of another class",
    "all_other_classes": "of all of these together",
}


def gradients(
    run: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A finished run's folder.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write.", show_default="RUN/analysis/gradients")] = None,
    over_training: Annotated[
        bool, typer.Option("--over-training", help="Train the configuration again and measure after every epoch.")
    ] = False,
    batches: Annotated[int, typer.Option(min=1, help="Training batches to measure.")] = 4,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LOSS", help="Losses to draw beside the family.", show_default="normsoftmax, proxy-nca, softtriple"
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a data, images, batches or run key."),
    ] = None,
    on_bad_image: Annotated[str, typer.Option(help="stop or skip: what an unreadable image does.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print what gradients.json holds.")] = False,
) -> None:
    """Show what pulls and pushes the items of a run: how strongly, whom else it moves, how long it lasts.

    Example: polyanchor analyze gradients runs/photos --over-training
    """
    from polyanchor.analysis.gradient_report import AGAINST, report_gradients
    from polyanchor.cli._output import note, print_json

    folder = out or run / "analysis" / "gradients"
    found = report_gradients(
        run,
        folder,
        settings=changed(settings, on_bad_image=on_bad_image, run=run),
        batches=batches,
        against=AGAINST if against is None else tuple(against),
        over_training=over_training,
        announce=note,
    )
    if as_json:
        print_json(found)
    else:
        _print(found)
    note(f"gradients.json and figures are in {folder}")


def _print(found: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from polyanchor.cli._output import print_whole

    console = Console()
    console.print(
        f"{found['run']}: {found['loss']['name']}, {found['batches']} batches of {found['batch_size']} items",
        markup=False,
        soft_wrap=True,
    )
    strength, shared = found["strength"], found["concentration"]
    table = Table("on the training batches", "")
    table.columns[1].justify = "right"
    for words, value in (
        ("pull, per unit of cosine", strength["pull"]),
        ("push, per unit of cosine", strength["push"]),
        ("pull share", found["pull_share"]),
        ("length of the gradient, mean", strength["mean"]),
        ("  median", strength["quantiles"][1]),
        (f"items that share a class's pull, of {shared['pull_of']:.1f}", shared["pull_items"]),
        (f"classes that share an item's push, of {shared['push_of']:.1f}", shared["push_classes"]),
    ):
        table.add_row(words, _number(value))
    print_whole(table)
    moved = Table("an item moves; what changes", *PARTS.values())
    for name, words in OTHERS.items():
        moved.add_row(words, *(_number(found["response"][part][name]) for part in PARTS))
    for column in moved.columns[1:]:
        column.justify = "right"
    print_whole(moved)
    console.print("as a multiple of the change of its own gradient")
    if "over_training" in found:
        _print_epochs(console, found["over_training"])
    for line in found["notes"]:
        console.print(f"note: {line}", soft_wrap=True, markup=False)


def _print_epochs(console: Any, measured: Mapping[str, Any]) -> None:
    from rich.table import Table

    from polyanchor.cli._output import print_whole

    table = Table()
    columns = {"epoch": "epoch", "usable": "usable", "usable_pull": "by pull", "usable_push": "by push"}
    for words in (*columns.values(), "median length"):
        table.add_column(words, justify="right")
    for row in measured["epochs"]:
        shares = (f"{row[name]:.3f}" for name in columns if name != "epoch")
        table.add_row(str(row["epoch"]), *shares, _number(row["quantiles"][1]))
    print_whole(table)
    if not measured["same_losses_as_the_run"]:
        console.print("note: this training did not go exactly as that of the run: its losses differ", soft_wrap=True)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"

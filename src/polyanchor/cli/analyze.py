"""``polyanchor analyze``: looks into runs and comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyanchor.cli._common import changed

if TYPE_CHECKING:
    from polyanchor.compare.stability import Stability


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
    reference: Annotated[
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
    from polyanchor.cli._common import note, print_json

    folder = out or run / "analysis" / "gradients"
    found = report_gradients(
        run,
        folder,
        settings=changed(settings, on_bad_image=on_bad_image, run=run),
        batches=batches,
        reference=AGAINST if reference is None else tuple(reference),
        over_training=over_training,
        announce=note,
    )
    if as_json:
        print_json(found)
    else:
        _print_gradients(found)
    note(f"gradients.json and figures are in {folder}")


def _print_gradients(found: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from polyanchor.cli._common import print_whole

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

    from polyanchor.cli._common import print_whole

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


def measures(
    comparison: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of a finished comparison.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for stability.json and the figure.", show_default="COMPARISON/stability")
    ] = None,
    galleries: Annotated[
        bool, typer.Option("--galleries/--no-galleries", help="Embed the test items again and search parts of them.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """How steady is each measure: over seeds, queries, classes and galleries; how well does it tell methods apart?

    Example: polyanchor analyze measures runs/comparison
    """
    from dataclasses import asdict

    from polyanchor.cli._common import note, print_json
    from polyanchor.compare.plan import ComparisonFolder
    from polyanchor.compare.stability import SHARES, draw, stability
    from polyanchor.runs.folder import without_nan, write_json
    from polyanchor.training.summary import environment

    folder = ComparisonFolder(comparison)
    found = stability(folder, shares=SHARES if galleries else (), announce=note)
    place = out or comparison / "stability"
    place.mkdir(parents=True, exist_ok=True)
    plan = folder.read_plan()
    said = without_nan(asdict(found) | {"plan": plan, "environment": environment()})
    write_json(place / "stability.json", said)
    draw(found, _shown(found), place)
    if as_json:
        print_json(said)
    else:
        _print_measures(found)
    note(f"stability.json, stability.svg and stability.png are in {place}")


def _shown(found: Stability) -> list[str]:
    """The measures at the smallest and the largest cut-off, and those without one."""
    deepest = max(int(name.partition("@")[2]) for name in found.means if name.startswith("recall@"))
    names = ["recall@1", f"recall@{deepest}", f"ndcg@{deepest}", "r_precision", "map@r", "mrr"]
    return [name for prefix in ("", "sub/") for name in (prefix + one for one in names) if name in found.means]


def _print_measures(found: Stability) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from polyanchor.cli._common import print_whole

    console = Console()
    console.print(f"{len(found.methods)} methods, {found.seeds} seeds")
    table = Table("measure", "mean", box=box.SIMPLE_HEAD, show_edge=False)
    for kind in ("seeds", "queries", "classes"):
        for what in ("deviation", "discr.", "tau"):
            table.add_column(f"{kind}\n{what}", justify="right")
    for name in _shown(found):
        cells = [name, f"{found.means[name]:.4f}"]
        for spreads in (found.over_seeds, found.over_queries, found.over_classes):
            one = spreads[name]
            cells += [f"{one.deviation:.4f}", f"{one.discrimination:.1f}", f"{one.agreement:.2f}"]
        table.add_row(*cells)
    print_whole(table)
    console.print(
        "deviation: of a method's mean over repeats (other seeds; random halves of the queries, of the classes). "
        "discr.: deviation between methods / between repeats. tau: agreement of two repeats on the order, nan where "
        "all methods tie. Parts of the gallery: runs of seed 0.",
        soft_wrap=True,
    )
    for share, measures in found.galleries.items():
        shown = [name for name in measures if name in _shown(found) or name.startswith("graded")]
        text = ", ".join(f"{name} {measures[name].mean:.3f} (tau {measures[name].agreement:.2f})" for name in shown)
        console.print(f"{float(share):.0%} of the test items: {text}", soft_wrap=True, highlight=False)


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
    split: Annotated[str, typer.Option(help="train or test: items of the classes that trained.")] = "train",
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
    from polyanchor.cli._common import note, print_json

    folder = out or run / "analysis" / "proxies"
    found = report_proxies(
        run,
        folder,
        split=split,
        settings=changed(settings, on_bad_image=on_bad_image, run=run),
        classes=classes,
        merged_above=merged_above,
    )
    if as_json:
        print_json(found)
    else:
        _print_proxies(found)
    sheets = any("sheet" in one for one in found["classes"])
    note(f"proxies.json{', figures and contact sheets' if sheets else ' and figures'} are in {folder}")


def _print_proxies(found: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from polyanchor.cli._common import print_whole

    console, classes = Console(), found["classes"]
    console.print(
        f"{found['run']}: {found['items']} {found['split']} items, {len(classes)} classes, "
        f"{found['proxies_per_class']} centres each",
        markup=False,
        soft_wrap=True,
    )
    means = Table("mean over the classes", "")
    means.columns[1].justify = "right"
    for name, words in MEANS.items():
        if name in found["means"]:
            means.add_row(words, _number_or_dash(found["means"][name]))
    print_whole(means)
    table = Table("class")
    for column in ("items", "in use", "distinct", "effective", "AMI", "purity"):
        table.add_column(column, justify="right")
    shown = [one for one in classes if "nearest" in one]
    for one in sorted(shown, key=lambda one: -one["effective_distinct"]):
        agreement = one["agreement"] or {}
        cells = one["distinct"], one["effective_distinct"], agreement.get("ami"), agreement.get("purity")
        table.add_row(Text(one["name"]), str(sum(one["counts"])), str(one["in_use"]), *map(_number_or_dash, cells))
    if shown:
        print_whole(table)
    for line in found["notes"]:
        console.print(f"note: {line}", soft_wrap=True, markup=False)


def _number_or_dash(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


app = typer.Typer(
    help="Look into runs: gradients of a loss, local centres of the classes, stability of the measures.",
    no_args_is_help=True,
)

app.command("gradients", short_help="What pulls and pushes the items of a run.")(gradients)
app.command("proxies", short_help="The local centres of the classes of a run.")(proxies)
app.command("measures", short_help="How steady the measures of a comparison are.")(measures)

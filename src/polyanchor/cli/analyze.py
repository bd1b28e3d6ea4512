"""``polyanchor analyze``: gradients and proxies of a run, stability of a comparison's measures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyanchor.cli._common import JSON, ON_BAD, RUN, changes_of, note, print_json, print_notes, print_table
from polyanchor.cli._flags import ConfigCommand

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
    context: typer.Context,
    run: RUN,
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
    on_bad_image: ON_BAD = None,
    as_json: JSON = False,
) -> None:
    """Show what pulls and pushes the items of a run: how strongly, whom else it moves, how long it lasts.

    Example: polyanchor analyze gradients runs/photos --over-training
    """
    from polyanchor.analysis.gradient_report import AGAINST, report_gradients

    folder = out or run / "analysis" / "gradients"
    report = report_gradients(
        run,
        folder,
        settings=changes_of(context, on_bad_image=on_bad_image, run=run),
        batches=batches,
        reference=AGAINST if reference is None else tuple(reference),
        over_training=over_training,
        announce=note,
    )
    if as_json:
        print_json(report)
    else:
        _print_gradients(report)
    note(f"gradients.json and figures are in {folder}")


def _print_gradients(report: Mapping[str, Any]) -> None:
    print(f"{report['run']}: {report['loss']['name']}, {report['batches']} batches of {report['batch_size']} items")
    strength, shared = report["strength"], report["concentration"]
    values = {
        "pull, per unit of cosine": strength["pull"],
        "push, per unit of cosine": strength["push"],
        "pull share": report["pull_share"],
        "length of the gradient, mean": strength["mean"],
        "  median": strength["quantiles"][1],
        f"items that share a class's pull, of {shared['pull_of']:.1f}": shared["pull_items"],
        f"classes that share an item's push, of {shared['push_of']:.1f}": shared["push_classes"],
    }
    print_table(("on the training batches", ""), [(words, _number(value)) for words, value in values.items()])
    print_table(
        ("an item moves; what changes", *PARTS.values()),
        [(words, *(_number(report["response"][part][name]) for part in PARTS)) for name, words in OTHERS.items()],
    )
    print("as a multiple of the change of its own gradient")
    if "over_training" in report:
        epochs = report["over_training"]["epochs"]
        print_table(
            ("epoch", "usable", "by pull", "by push", "median length"),
            [
                (
                    str(row["epoch"]),
                    *(f"{row[name]:.3f}" for name in ("usable", "usable_pull", "usable_push")),
                    _number(row["quantiles"][1]),
                )
                for row in epochs
            ],
            align="rrrrr",
        )
        if not report["over_training"]["same_losses_as_the_run"]:
            print("note: this training did not go exactly as that of the run: its losses differ")
    print_notes(report["notes"])


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
    as_json: JSON = False,
) -> None:
    """How steady is each measure: over seeds, queries, classes and galleries; how well does it tell methods apart?

    Example: polyanchor analyze measures runs/comparison
    """
    from dataclasses import asdict

    from polyanchor.compare.plan import ComparisonFolder
    from polyanchor.compare.stability import SHARES, draw, stability
    from polyanchor.runs.folder import without_nan, write_json
    from polyanchor.training.summary import environment

    plan = ComparisonFolder(comparison)
    report = stability(plan, shares=SHARES if galleries else (), announce=note)
    folder = out or comparison / "stability"
    folder.mkdir(parents=True, exist_ok=True)
    content = without_nan(asdict(report) | {"plan": plan.read_plan(), "environment": environment()})
    write_json(folder / "stability.json", content)
    draw(report, _shown(report), folder)
    if as_json:
        print_json(content)
    else:
        _print_measures(report)
    note(f"stability.json, stability.svg and stability.png are in {folder}")


def _shown(report: Stability) -> list[str]:
    """The measures at the smallest and the largest cut-off, and those without one."""
    deepest = max(int(name.partition("@")[2]) for name in report.means if name.startswith("recall@"))
    names = ["recall@1", f"recall@{deepest}", f"ndcg@{deepest}", "r_precision", "map@r", "mrr"]
    return [prefix + name for prefix in ("", "sub/") for name in names if prefix + name in report.means]


def _print_measures(report: Stability) -> None:
    print(f"{len(report.methods)} methods, {report.seeds} seeds")
    rows = []
    for name in _shown(report):
        cells = [name, f"{report.means[name]:.4f}"]
        for spreads in (report.over_seeds, report.over_queries, report.over_classes):
            spread = spreads[name]
            cells += [f"{spread.deviation:.4f}", f"{spread.discrimination:.1f}", f"{spread.agreement:.2f}"]
        rows.append(cells)
    columns = [f"{kind}\n{what}" for kind in ("seeds", "queries", "classes") for what in ("deviation", "discr.", "tau")]
    print_table(("measure", "mean", *columns), rows, simple=True)
    print(
        "deviation: of a method's mean over repeats (other seeds; random halves of the queries, of the classes). "
        "discr.: deviation between methods / between repeats. tau: agreement of two repeats on the order, nan where "
        "all methods tie. Parts of the gallery: runs of seed 0."
    )
    for share, measures in report.galleries.items():
        shown = [name for name in measures if name in _shown(report) or name.startswith("graded")]
        text = ", ".join(f"{name} {measures[name].mean:.3f} (tau {measures[name].agreement:.2f})" for name in shown)
        print(f"{float(share):.0%} of the test items: {text}")


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
    context: typer.Context,
    run: RUN,
    out: Annotated[Path | None, typer.Option(help="Folder to write.", show_default="RUN/analysis/proxies")] = None,
    split: Annotated[str, typer.Option(help="train or test: items of the classes that trained.")] = "train",
    classes: Annotated[
        int, typer.Option(min=0, help="Classes to show: half with most centres in use, half with fewest.")
    ] = 4,
    merged_above: Annotated[
        float | None, typer.Option(help="Cosine above which two centres count as merged.", show_default="0.95")
    ] = None,
    on_bad_image: ON_BAD = None,
    as_json: JSON = False,
) -> None:
    """Show the local centres of the classes: how many are in use, which merged, what they hold.

    Example: polyanchor analyze proxies runs/photos

    Where the data has known finer classes, the centres are compared with them, with k-means and with chance.
    """
    from polyanchor.analysis.proxy_report import report_proxies

    folder = out or run / "analysis" / "proxies"
    report = report_proxies(
        run,
        folder,
        split=split,
        settings=changes_of(context, on_bad_image=on_bad_image, run=run),
        classes=classes,
        merged_above=merged_above,
    )
    if as_json:
        print_json(report)
    else:
        _print_proxies(report)
    sheets = any("sheet" in row for row in report["classes"])
    note(f"proxies.json{', figures and contact sheets' if sheets else ' and figures'} are in {folder}")


def _print_proxies(report: Mapping[str, Any]) -> None:
    classes = report["classes"]
    print(
        f"{report['run']}: {report['items']} {report['split']} items, {len(classes)} classes, "
        f"{report['proxies_per_class']} centres each"
    )
    means = report["means"]
    print_table(
        ("mean over the classes", ""),
        [(words, _number_or_empty(means[name])) for name, words in MEANS.items() if name in means],
    )
    rows = []
    for row in sorted((row for row in classes if "nearest" in row), key=lambda row: -row["effective_distinct"]):
        agreement = row["agreement"] or {}
        cells = row["distinct"], row["effective_distinct"], agreement.get("ami"), agreement.get("purity")
        rows.append((row["name"], str(sum(row["counts"])), str(row["in_use"]), *map(_number_or_empty, cells)))
    if rows:
        print_table(("class", "items", "in use", "distinct", "effective", "AMI", "purity"), rows)
    print_notes(report["notes"])


def _number_or_empty(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


app = typer.Typer(
    help="Look into runs: gradients of a loss, local centres of the classes, stability of the measures.",
    no_args_is_help=True,
)

app.command("gradients", cls=ConfigCommand, short_help="What pulls and pushes the items of a run.")(gradients)
app.command("proxies", cls=ConfigCommand, short_help="The local centres of the classes of a run.")(proxies)
app.command("measures", short_help="How steady the measures of a comparison are.")(measures)

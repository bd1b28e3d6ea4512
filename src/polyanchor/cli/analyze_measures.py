"""``polyanchor analyze measures``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from polyanchor.experiments.stability import Stability


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

    from polyanchor.cli._output import note, print_json
    from polyanchor.experiments.folder import ComparisonFolder
    from polyanchor.experiments.stability import SHARES, stability
    from polyanchor.experiments.stability_figure import draw
    from polyanchor.training.environment import environment
    from polyanchor.training.run_folder import without_nan, write_json

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
        _print(found)
    note(f"stability.json, stability.svg and stability.png are in {place}")


def _shown(found: Stability) -> list[str]:
    """The measures at the smallest and the largest cut-off, and those without one."""
    deepest = max(int(name.partition("@")[2]) for name in found.means if name.startswith("recall@"))
    names = ["recall@1", f"recall@{deepest}", f"ndcg@{deepest}", "r_precision", "map@r", "mrr"]
    return [name for prefix in ("", "sub/") for name in (prefix + one for one in names) if name in found.means]


def _print(found: Stability) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from polyanchor.cli._output import print_whole

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

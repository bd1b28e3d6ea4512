"""``polyanchor compare``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyanchor._errors import InputError
from polyanchor.cli._common import CONFIG, JSON, note, print_json, print_notes, print_table
from polyanchor.cli._flags import require_no_toml, settings_of
from polyanchor.cli.train import SOURCE

if TYPE_CHECKING:
    from polyanchor.compare.significance import ComparisonResult

PER_RUN = {"run.seed": "--seeds", "loss.name": "--method", "loss.anchor": "--method", "loss.loss": "--method"}
"""Keys that differ between the runs -> the option that sets them."""


def compare(
    context: typer.Context,
    source: SOURCE = None,
    config: CONFIG = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[LABEL:]NAME[,KEY=VALUE...]",
            help="class, data, mixed, or a baseline; may be given again. all: every one.",
            show_default="all",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method.")] = 5,
    trials: Annotated[
        int, typer.Option(min=0, help="Trials for the hyper-parameters of each method; 0 takes the defaults.")
    ] = 15,
    reference: Annotated[
        str, typer.Option(help="Label of the method that the others are tested against.", show_default="proxy-anchor")
    ] = "",
    out: Annotated[Path, typer.Option(help="Folder; an unfinished comparison in it is continued.")] = Path(
        "runs/comparison"
    ),
    as_json: JSON = False,
) -> None:
    """Compare losses fairly: the same budget of trials, the same batches, several seeds, tests of the differences.

    Example: polyanchor compare photos.safetensors --backbone none --seeds 5

    The flags of polyanchor train, and every key of the configuration, apply to all methods. Killed, or stopped with
    Ctrl-C, the comparison continues when the same command is given again. Hyper-parameters and epochs are chosen on
    held-out training classes.
    """
    settings = settings_of(context, {"data.source": source})
    require_no_toml(source, "compare")
    for key in (setting.partition("=")[0] for setting in settings):
        if key in PER_RUN:
            raise InputError(f"--{key}: each run takes it from {PER_RUN[key]}; leave it out")
    from polyanchor.config.loading import load_config

    shared = load_config(config, settings)
    from polyanchor.compare.plan import Plan, parse_methods
    from polyanchor.compare.run import compare as run_comparison
    from polyanchor.training.stopping import Interrupted, StopRequest

    methods = parse_methods(method or ["all"])
    labels = [method.label for method in methods]
    if reference and labels == [reference]:
        raise InputError(f"--reference {reference}: there is no other method to test against it; add one with --method")
    if not reference:
        reference = "proxy-anchor" if "proxy-anchor" in labels else labels[0]
        if len(labels) > 1:
            note(f"the others are tested against {reference}; --reference names another")
    plan = Plan(shared, methods, seeds, trials, reference)
    stop = StopRequest(note)
    try:
        result = run_comparison(plan, out, announce=note, stop=stop)
    except Interrupted:
        note("stopped; the same command goes on")
        raise typer.Exit(stop.exit_code) from None
    if as_json:
        print_json(json.loads((out / "table.json").read_text(encoding="utf-8")))
    else:
        print_comparison(result)
    note(f"table.json and table.md are in {out}")


def print_comparison(result: ComparisonResult) -> None:
    """Print the measures, best method first; then the tests against the reference."""
    from polyanchor.compare.tables import before_rows, measures_of, shown_measures, tests_of

    shown = shown_measures(result)
    searched = f"hyper-parameters searched, trials of each: {result.trials}" if result.trials else "nothing searched"
    print(f"{result.source}: test classes, {searched}")
    rows = [measures_of(line, shown) for line in result.lines] + before_rows(result, shown)
    print_table(["method", "runs", *shown, "s/run"], rows, simple=True)
    tested = [tests_of(line, result) for line in result.lines if line.tests]
    if tested:
        difference = f"{result.monitor} less {result.reference}"
        print_table(["method", difference, "p seeds", "p queries", "p classes"], tested, simple=True)
    print(
        "± is half of the 95 % interval over seeds. p: of no difference, corrected for the number of methods (Holm), "
        "over seeds (paired t), queries and classes (bootstrap); <= where no resample came out on the other side and p "
        "may be much smaller, - where there is too little to tell."
    )
    print_notes(result.notes)

"""``polyanchor compare``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from polyanchor._errors import InputError


def compare(
    config: Annotated[
        Path | None,
        typer.Argument(
            exists=True, dir_okay=False, help="TOML file of what all methods share; see `polyanchor train`."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one shared key; may be given again."),
    ] = None,
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
    out: Annotated[Path, typer.Option(help="Folder; an unfinished comparison in it is gone on with.")] = Path(
        "runs/comparison"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole table as JSON.")] = False,
) -> None:
    """Compare losses fairly: the same budget of trials, the same batches, several seeds, tests of the differences.

    Example: polyanchor compare --set data.source=features:photos.safetensors --set model.backbone=none --seeds 5

    Killed, or stopped with Ctrl-C, it goes on where it stood when the same command is given again. Hyper-parameters
    and epochs are chosen on held-out training classes.
    """
    from polyanchor.cli._common import note, print_json, print_verdict
    from polyanchor.compare.plan import Plan, parse_methods
    from polyanchor.compare.run import compare as run_comparison
    from polyanchor.config.loading import load_config
    from polyanchor.training.stopping import Interrupted, StopRequest

    for setting in settings or ():
        key, what = setting.partition("=")[0], "--seeds" if setting.startswith("run.seed=") else "--method"
        if key in ("run.seed", "loss.name", "loss.anchor"):
            raise InputError(f"--set {setting}: each run takes {key} from {what}; leave it out")
    methods = parse_methods(method or ["all"])
    labels = [one.label for one in methods]
    if reference and labels == [reference]:
        raise InputError(f"--reference {reference}: there is no other method to test against it; add one with --method")
    reference = reference or ("proxy-anchor" if "proxy-anchor" in labels else labels[0])
    plan = Plan(load_config(config, settings or ()), methods, seeds, trials, reference)
    stop = StopRequest(note)
    try:
        verdict = run_comparison(plan, out, announce=note, stop=stop)
    except Interrupted:
        note("stopped; the same command goes on")
        raise typer.Exit(stop.exit_code) from None
    if as_json:
        print_json(json.loads((out / "table.json").read_text(encoding="utf-8")))
    else:
        print_verdict(verdict)
    note(f"table.json and table.md are in {out}")

"""``polyanchor train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyanchor._errors import InputError
from polyanchor.cli._common import changed, require_images


def train(
    config: Annotated[
        Path | None,
        typer.Argument(exists=True, dir_okay=False, help="TOML file; without one, the defaults."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one key; may be given again."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; must be new.", show_default="runs/run"),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Go on with the run in this folder."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Items of a batch, computed in pieces of the configured batch.", show_default=False),
    ] = None,
    on_bad_image: Annotated[str, typer.Option(help="stop or skip: what an unreadable image does.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Train an embedding and measure it on classes that it has not seen.

    Example: polyanchor train --set data.source=folder:photos --set loss.anchor=data --out runs/photos

    On several devices: --set run.devices=2, or torchrun or srun around the command.

    Ctrl-C finishes the step, writes a checkpoint and stops; --resume runs/photos goes on from there, exactly. All keys
    with their values are written to config.toml in the run's folder.
    """
    from polyanchor.cli._common import note, print_run, silent
    from polyanchor.config.loading import load_config, with_batch_size
    from polyanchor.runs.folder import RunFolder
    from polyanchor.training.launch import rank_zero_speaks
    from polyanchor.training.stopping import Interrupted, StopRequest
    from polyanchor.training.train import train as run_training

    changes = changed(settings, on_bad_image=on_bad_image)
    folder = resume or out or Path("runs/run")
    if resume is not None:
        if config is not None or out is not None or batch_size is not None:
            raise InputError(
                "--resume takes configuration and folder of the run itself; leave CONFIG and --out away, and "
                "--batch-size"
            )
        resolved = RunFolder(resume).read_config(changes)
    else:
        resolved = load_config(config, changes)
    require_images([resolved.data.source], on_bad_image)
    if batch_size is not None:
        resolved = with_batch_size(resolved, batch_size)
    stop = StopRequest(note)
    try:
        with rank_zero_speaks() as first:
            announce = note if first else silent
            stop.announce = announce
            if config is None and resume is None and not settings:
                announce(f"no CONFIG and no --set: the defaults, on {resolved.data.source}, into {folder}")
            run_training(resolved, folder, resume=resume is not None, announce=announce, stop=stop)
    except Interrupted:
        if first:
            note(f"stopped; go on with: polyanchor train --resume {folder}")
        raise typer.Exit(stop.exit_code) from None
    if first:
        print_run(folder, as_json=as_json)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for images and run; must be new.")] = Path("demo"),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training digits.")] = 10,
) -> None:
    """Write scikit-learn's digits as an image folder, train on 0-4, retrieve among 5-9.

    Example: polyanchor demo --out demo
    """
    from polyanchor.cli._common import note, print_run
    from polyanchor.training.train import run_demo

    run_demo(out, epochs=epochs, announce=note)
    print_run(out / "run", as_json=False)

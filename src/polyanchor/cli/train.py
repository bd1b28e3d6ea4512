"""``polyanchor train``, ``config`` and ``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from polyanchor._errors import InputError
from polyanchor.cli._common import CONFIG, JSON, ON_BAD, note, print_run, require_images, silent
from polyanchor.cli._flags import require_no_toml, settings_of
from polyanchor.datasets.spec import require_path
from polyanchor.types import Anchor, BaselineName

SOURCE: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="SOURCE",
        help="Data: a folder, .csv, .parquet, file of vectors (.safetensors, .npz, .npy), or a name such as cub200.",
        show_default="digits",
    ),
]
LOSS = Literal[Anchor, BaselineName]


def train(
    context: typer.Context,
    source: SOURCE = None,
    config: CONFIG = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; must be new.", show_default="runs/run"),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Continue the run in this folder."),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="A timm model, bn_inception, or none for vectors.", show_default="resnet18")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="hub: pretrained by timm; a file of weights; a run's folder; '' random.", show_default="hub"),
    ] = None,
    loss: Annotated[
        LOSS | None, typer.Option(help="Multi Proxy Anchor (class, data, mixed) or a baseline.", show_default="class")
    ] = None,
    proxies_per_class: Annotated[int | None, typer.Option(help="Proxies of a class.", show_default="10")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training classes.", show_default="20")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Items of a batch: classes x items of each.", show_default="120")
    ] = None,
    micro_batch_size: Annotated[
        int | None, typer.Option(help="Items that go through the network at once.", show_default="all of the batch")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of the backbone.", show_default="0.0003")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the images that the network sees, in pixels.", show_default="224")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="auto|cpu|gpu|cuda", help="What computes.", show_default="auto")
    ] = None,
    precision: Annotated[
        Literal["32-true", "16-mixed", "bf16-mixed", "64-true"] | None,
        typer.Option(help="Of the numbers, as Lightning names it.", show_default="32-true"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything that is random.", show_default="0")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that decode images.", show_default="0")] = None,
    on_bad_image: ON_BAD = None,
    as_json: JSON = False,
) -> None:
    """Train an embedding and measure it on classes that it has not seen.

    Example: polyanchor train photos/ --backbone resnet50 --weights hub --loss mixed --out runs/photos

    Every other key of the configuration is a flag, too: --optim.weight_decay 1e-3, or --val-share 0.1 where one
    section alone has the key. polyanchor config prints them all; with --loss arcface, those of that loss.

    On several devices: --devices 2, or torchrun or srun around the command.

    Ctrl-C finishes the step, writes a checkpoint and stops; --resume runs/photos continues from there, exactly. All
    keys with their values are written to config.toml in the run's folder.
    """
    settings = settings_of(
        context,
        {
            "data.source": source,
            "model.backbone": backbone,
            "model.weights": weights,
            "loss.loss": loss,
            "loss.proxies_per_class": proxies_per_class,
            "run.epochs": epochs,
            "batches.batch_size": batch_size,
            "batches.micro_batch_size": micro_batch_size,
            "optim.lr": lr,
            "images.image_size": image_size,
            "run.device": device,
            "run.precision": precision,
            "run.seed": seed,
            "data.workers": workers,
            "data.on_bad_image": on_bad_image,
        },
    )
    require_no_toml(source, "train")
    if resume is not None:
        for option, value in (("SOURCE", source), ("--config", config), ("--out", out), ("--batch-size", batch_size)):
            if value is not None:
                raise InputError(
                    f"--resume takes configuration and folder from the run itself; leave {option} out, got {value}"
                )
    from polyanchor.config.loading import load_config

    if resume is None:
        resolved = load_config(config, settings)  # before torch is imported: a wrong word is answered at once
        require_path(resolved.data.source)
        require_path(resolved.data.test)
    from polyanchor.runs.folder import RunFolder
    from polyanchor.training.launch import rank_zero_speaks
    from polyanchor.training.stopping import Interrupted, StopRequest
    from polyanchor.training.train import train as run_training

    folder = resume or out or Path("runs/run")
    if resume is not None:
        resolved = RunFolder(resume).read_config(settings)
    require_images([resolved.data.source], on_bad_image)
    stop = StopRequest(note)
    try:
        with rank_zero_speaks() as first:
            announce = note if first else silent
            stop.announce = announce
            if config is None and resume is None and not settings:
                announce(f"no SOURCE and no flags: the defaults, on {resolved.data.source}, into {folder}")
            run_training(resolved, folder, resume=resume is not None, announce=announce, stop=stop)
    except Interrupted:
        if first:
            note(f"stopped; go on with: polyanchor train --resume {folder}")
        raise typer.Exit(stop.exit_code) from None
    if first:
        print_run(folder, as_json=as_json)


def config(context: typer.Context, source: SOURCE = None, config: CONFIG = None) -> None:
    """Print the configuration as TOML, each key with a comment; --config reads it back.

    Example: polyanchor config photos/ --loss mixed --lr 1e-4 > photos.toml
    """
    require_no_toml(source, "config")
    from polyanchor.config.loading import explain_config, load_config

    print(explain_config(load_config(config, settings_of(context, {"data.source": source}))), end="")


def demo(
    out: Annotated[Path, typer.Option(help="Folder for images and run; must be new.")] = Path("demo"),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training digits.")] = 10,
) -> None:
    """Write scikit-learn's digits as an image folder, train on 0-4, retrieve among 5-9.

    Example: polyanchor demo --out demo
    """
    from polyanchor.training.train import run_demo

    run_demo(out, epochs=epochs, announce=note)
    print_run(out / "run", as_json=False)

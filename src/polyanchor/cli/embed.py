"""``polyanchor embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyanchor.cli._settings import changed


def embed(
    out: Annotated[Path, typer.Option(help="File to write; must end in .safetensors.")],
    run: Annotated[
        Path | None,
        typer.Argument(
            exists=True, help="A finished run's folder; or, with --features, a TOML file or nothing: no training."
        ),
    ] = None,
    data: Annotated[str, typer.Option(help="Another data source; all of it is embedded.")] = "",
    part: Annotated[
        str, typer.Option(help="Of the run's own data: test (the default), gallery, train, validation or all.")
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="Change a data, images or run key; without a run, any key."
        ),
    ] = None,
    on_bad_image: Annotated[str, typer.Option(help="stop or skip: what an unreadable image does.")] = "",
    features: Annotated[
        bool, typer.Option("--features", help="Write what the backbone gives, before the head.")
    ] = False,
) -> None:
    """Write the vectors of a data set, with labels and names, to a .safetensors file.

    Example: polyanchor embed runs/photos --out photos.safetensors

    Features of a pretrained backbone, to train heads on: polyanchor embed --features --part all
    --set data.source=folder:photos --set model.weights=hub --out photos.safetensors

    The file is read by `polyanchor evaluate` and, as features:photos.safetensors, by `polyanchor train`.
    """
    from polyanchor.cli._output import note
    from polyanchor.training.reuse import embed_run

    run_folder = run if run is not None and run.is_dir() else None
    changes = changed(settings, on_bad_image=on_bad_image, run=run_folder, data=data)
    written = embed_run(run, out, data=data, part=part, settings=changes, features=features, announce=note)
    what = f"all of {data}" if data else "all parts" if part == "all" else f"the {part or 'test'} part"
    note(f"{tuple(written.vectors.shape)} vectors, {len(written.labels.unique())} classes, {what}, in {out}")

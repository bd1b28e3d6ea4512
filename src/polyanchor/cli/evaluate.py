"""``polyanchor evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyanchor._errors import InputError
from polyanchor.cli._common import changed


def evaluate(
    target: Annotated[
        Path, typer.Argument(exists=True, help="A run's folder, or a file written by `polyanchor embed`.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a data, images or run key."),
    ] = None,
    data: Annotated[str, typer.Option(help="Another data source; all of it is searched.")] = "",
    split: Annotated[
        str, typer.Option(help="Of the run's own data, or of a file with parts: test (the default), train, validation.")
    ] = "",
    k: Annotated[
        list[int] | None,
        typer.Option("--k", min=1, help="Cut-off; may be given again."),
    ] = None,
    on_bad_image: Annotated[str, typer.Option(help="stop or skip: what an unreadable image does.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the measures as JSON.")] = False,
) -> None:
    """Measure retrieval: recall@k, precision@k, nDCG@k, MRR, R-precision, MAP@R.

    Example: polyanchor evaluate runs/photos --k 1 --k 10

    Each item is searched among all others, itself left out; a data set with a gallery is searched in that. Other
    images: polyanchor evaluate runs/photos --data folder:other
    """
    from polyanchor.cli._common import print_json, print_report
    from polyanchor.runs.folder import as_json as to_json
    from polyanchor.runs.load import evaluate_file, evaluate_run

    cutoffs = tuple(k or ())
    if target.is_dir():
        changes = changed(settings, on_bad_image=on_bad_image, run=target, data=data)
        report = evaluate_run(target, data=data, split=split, settings=changes, k=cutoffs)
    else:
        given = {"--data": data, "--set": settings, "--on-bad-image": on_bad_image}
        for option in (name for name, value in given.items() if value):
            raise InputError(f"{option} needs a run's folder, and {target} is a file of vectors; leave {option} out")
        report = evaluate_file(target, split=split, k=cutoffs)
    if as_json:
        print_json(to_json(report))
    else:
        what = data or f"{split or 'test'} classes"
        print_report(to_json(report), title=f"{target}: {what}" if target.is_dir() else f"{target}")


def embed(
    out: Annotated[Path, typer.Option(help="File to write: .safetensors, or .parquet with thumbnails.")],
    run: Annotated[
        Path | None,
        typer.Argument(
            exists=True, help="A finished run's folder; or, with --features, a TOML file or nothing: no training."
        ),
    ] = None,
    data: Annotated[str, typer.Option(help="Another data source; all of it is embedded.")] = "",
    split: Annotated[
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
    """Write the vectors of a data set, with labels and names, to a .safetensors or .parquet file.

    Example: polyanchor embed runs/photos --out photos.safetensors

    Features of a pretrained backbone, to train heads on: polyanchor embed --features --split all
    --set data.source=folder:photos --set model.weights=hub --out photos.safetensors

    A .safetensors file is read by `polyanchor evaluate` and, as features:photos.safetensors, by `polyanchor train`.
    A .parquet file also holds thumbnails and the nDCG of each query; embedding-atlas opens it.
    """
    from polyanchor.cli._common import note, say_skipped
    from polyanchor.runs.embed_parts import open_rows, write_parquet
    from polyanchor.runs.load import embed_run

    run_folder = run if run is not None and run.is_dir() else None
    changes = changed(settings, on_bad_image=on_bad_image, run=run_folder, data=data)
    if out.suffix == ".parquet":
        if features or run_folder is None:
            raise InputError(
                f"{out}: a .parquet file holds vectors of a finished run; write --features to .safetensors"
            )
        rows, k, skipped = open_rows(run_folder, data=data, split=split, settings=changes)
        write_parquet(rows, out, k=k)
        say_skipped(skipped)
        count = sum(len(part.items) for part in rows)
        pictures = "" if any(part.items.is_vectors for part in rows) else " --image image"
        note(f"{count} items are in {out}; look at them with: embedding-atlas {out} --vector vector{pictures}")
        return
    written = embed_run(run, out, data=data, split=split, settings=changes, features=features, announce=note)
    what = f"all of {data}" if data else "all parts" if split == "all" else f"the {split or 'test'} part"
    note(f"{tuple(written.vectors.shape)} vectors, {len(written.labels.unique())} classes, {what}, in {out}")

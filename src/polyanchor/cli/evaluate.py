"""``polyanchor evaluate`` and ``embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyanchor._errors import InputError
from polyanchor.cli._common import CONFIG, JSON, ON_BAD, changes_of, note, note_skipped, print_json, print_report
from polyanchor.cli._flags import require_no_toml, settings_of
from polyanchor.datasets.spec import source_spec


def evaluate(
    context: typer.Context,
    target: Annotated[
        Path, typer.Argument(exists=True, help="A run's folder, or a file written by `polyanchor embed`.")
    ],
    data: Annotated[str, typer.Option(metavar="SOURCE", help="Another data source; all of it is searched.")] = "",
    split: Annotated[
        str, typer.Option(help="Of the run's own data, or of a file with parts: test (the default), train, validation.")
    ] = "",
    k: Annotated[
        list[int] | None,
        typer.Option("--k", min=1, help="Cut-off; may be given again."),
    ] = None,
    on_bad_image: ON_BAD = None,
    as_json: JSON = False,
) -> None:
    """Measure retrieval: recall@k, precision@k, nDCG@k, MRR, R-precision, MAP@R.

    Example: polyanchor evaluate runs/photos --k 1 --k 10

    Each item is searched among all others, itself left out; a data set with a gallery is searched in that. Other
    images: polyanchor evaluate runs/photos --data other/. The run's data, images and run keys are flags: --device cpu.
    """
    data = source_spec(data)
    cutoffs = tuple(k or ())
    from polyanchor.runs.folder import as_json as to_json
    from polyanchor.runs.load import evaluate_file, evaluate_run

    if target.is_dir():
        changes = changes_of(context, on_bad_image=on_bad_image, run=target, data=data)
        report = to_json(evaluate_run(target, data=data, split=split, settings=changes, k=cutoffs))
        title = f"{target}: {data or (split or 'test') + ' classes'}"
    else:
        changes = settings_of(context)
        options = {
            "--data": data,
            "--on-bad-image": on_bad_image,
            **{f"--{key.partition('=')[0]}": 1 for key in changes},
        }
        for option in (name for name, value in options.items() if value):
            raise InputError(f"{option} needs a run's folder, and {target} is a file of vectors; leave {option} out")
        report, title = to_json(evaluate_file(target, split=split, k=cutoffs)), f"{target}"
    if as_json:
        print_json(report)
    else:
        print_report(report, title=title)


def embed(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="File to write: .safetensors, or .parquet with thumbnails.")],
    run: Annotated[
        str | None, typer.Argument(help="A finished run's folder; with --features none: no training.")
    ] = None,
    config: CONFIG = None,
    data: Annotated[str, typer.Option(metavar="SOURCE", help="Another data source; all of it is embedded.")] = "",
    split: Annotated[
        str, typer.Option(help="Of the run's own data: test (the default), gallery, train, validation or all.")
    ] = "",
    on_bad_image: ON_BAD = None,
    features: Annotated[
        bool, typer.Option("--features", help="Write what the backbone gives, before the head.")
    ] = False,
) -> None:
    """Write the vectors of a data set, with labels and names, to a .safetensors or .parquet file.

    Example: polyanchor embed runs/photos --out photos.safetensors

    Features of a pretrained backbone, to train heads on: polyanchor embed --features --split all --source photos/
    --weights hub --out photos.safetensors. Without a run, --config and every key of the configuration apply; with one,
    its data, images and run keys.

    A .safetensors file is read by `polyanchor evaluate` and `polyanchor train`. A .parquet file also holds thumbnails
    and the nDCG of each query; embedding-atlas opens it.
    """
    require_no_toml(run, "embed --features")
    folder = None if run is None else Path(run)
    if folder is not None and not folder.is_dir():
        raise InputError(f"RUN must be the folder of a finished run, got {run}")
    if folder is not None and config is not None:
        raise InputError(f"--config is for --features without a run, got the run {run}; leave one of them out")
    data = source_spec(data)
    from polyanchor.runs.embed_parts import open_rows, write_parquet
    from polyanchor.runs.load import embed_run

    changes = changes_of(context, on_bad_image=on_bad_image, run=folder, data=data)
    if out.suffix == ".parquet":
        if features or folder is None:
            raise InputError(
                f"{out}: a .parquet file holds vectors of a finished run; write --features to .safetensors"
            )
        rows, k, skipped = open_rows(folder, data=data, split=split, settings=changes)
        write_parquet(rows, out, k=k)
        note_skipped(skipped)
        count = sum(len(part.items) for part in rows)
        pictures = "" if any(part.items.is_vectors for part in rows) else " --image image"
        note(f"{count} items are in {out}; look at them with: embedding-atlas {out} --vector vector{pictures}")
        return
    written = embed_run(
        folder or config, out, data=data, split=split, settings=changes, features=features, announce=note
    )
    what = f"all of {data}" if data else "all parts" if split == "all" else f"the {split or 'test'} part"
    note(f"{tuple(written.vectors.shape)} vectors, {len(written.labels.unique())} classes, {what}, in {out}")

"""``polyanchor export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from polyanchor._errors import InputError
from polyanchor.cli._common import JSON, print_json, print_table

if TYPE_CHECKING:
    from polyanchor.deploy.export import Exported


def export(
    run: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="A finished run's folder, or a saved embedder's.")
    ],
    to: Annotated[
        Literal["onnx", "pt2", "safetensors"],
        typer.Option(help="onnx or pt2 (torch.export): one file; safetensors: a folder in the Hugging Face form."),
    ],
    out: Annotated[Path, typer.Option(help="File to write (.onnx, .pt2), or a new folder.")],
    pixels: Annotated[
        Literal["uint8", "float"] | None,
        typer.Option(
            help="Images of the file: uint8 (batch, size, size, 3), or float (batch, 3, size, size).",
            show_default="uint8",
        ),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Write a model for other programs, and compare what was written with it.

    Example: polyanchor export runs/photos --to onnx --out photos.onnx

    The batch size is free. Normalisation is in the file; resizing and cropping are described beside it, in
    photos.onnx.json. A folder for the Hugging Face hub, with a model card that holds the measures: polyanchor export
    runs/photos --to safetensors --out photos-embedder
    """
    from polyanchor.deploy.embedder import open_embedder
    from polyanchor.deploy.export import export as write

    model = open_embedder(run)
    if pixels and (to == "safetensors" or not model.takes_images):
        takes = "a folder of safetensors" if model.takes_images else "a model of vectors"
        raise InputError(f"--pixels is the form of images in onnx and pt2 files, not for {takes}; leave it out")
    exported = write(model, to, out, pixels=pixels or "uint8")
    if as_json:
        print_json({"files": [str(file) for file in exported.files], **exported.about})
    else:
        _print(exported)


def _print(exported: Exported) -> None:
    from polyanchor.deploy.export import ALLOWED

    about = exported.about
    for file in exported.files:
        print(f"wrote {file}, {_size(file.stat().st_size)}")
    rows: list[tuple[str, str]] = []
    for key in ("input", "output"):
        if key in about:
            part = about[key]
            values = f": {part['values']}" if "values" in part else ""
            rows.append((key, f"{part['name']} {part['dtype']} ({', '.join(map(str, part['shape']))}){values}"))
    for number, step in enumerate(about.get("before", {}).get("steps", ()), 1):
        rows.append(("before it" if number == 1 else "", f"{number}. {step}"))
    if "inside" in about:
        rows.append(("inside", f"mean {about['inside']['mean']}, std {about['inside']['std']} of values in [0, 1]"))
    rows.append(("compared with", about["compared_with"]))
    difference = about["largest_difference"]
    if difference is not None:
        allowed = f"{difference:.2g} in a vector of length 1; allowed {ALLOWED:.0e}"
        rows.append(("largest difference", allowed))
    print_table(("", ""), rows, align="ll", fold=True)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"

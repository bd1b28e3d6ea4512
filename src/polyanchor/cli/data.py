"""``polyanchor data``: what sources there are, and whether a copy is complete."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyanchor._errors import InputError
from polyanchor.cli._common import JSON, PARTIAL, ROOT, print_json, print_table, refuse_unused
from polyanchor.datasets.spec import MAX_PIXELS, source_spec

if TYPE_CHECKING:
    from polyanchor.datasets.items import Items, Split

app = typer.Typer(help="Data sources: which there are, and whether a copy is complete.", no_args_is_help=True)


@app.command("list")
def list_sources(as_json: JSON = False) -> None:
    """Name every data source; --json adds what to cite and what is known of the terms.

    Example: polyanchor data list --json
    """
    from polyanchor.datasets.sources import KNOWN

    if as_json:
        print_json([asdict(info) for info in KNOWN])
        return
    print_table(
        ["source", "what", "classes", "images", "where"],
        [[info.name, info.what, info.classes, info.images, info.where] for info in KNOWN],
        align="lllll",
        fold=True,
    )


@app.command()
def verify(
    spec: Annotated[str, typer.Argument(metavar="SOURCE", help="A path, or a name from `polyanchor data list`.")],
    root: ROOT = None,
    allow_partial: PARTIAL = False,
    images: Annotated[bool, typer.Option("--images", help="Read every image and name the bad ones.")] = False,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            min=1, help="Most pixels of an image, as data.max_pixels of a training.", show_default=f"{MAX_PIXELS:,}"
        ),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Count the images and classes of a source against its own list and the official numbers.

    Exit code 0: complete and readable. 1: not.

    Example: polyanchor data verify cars196 --root data --images
    """
    from polyanchor.datasets.sources import open_source

    spec = source_spec(spec)
    # describing an incomplete copy is this command's job, so opening one is no error
    split = open_source(spec, root=root or Path("data"), allow_partial=True, max_pixels=max_pixels or MAX_PIXELS)
    refuse_unused([spec], root, allow_partial)
    for option, value in (("--images", images), ("--max-pixels", max_pixels)):
        if value and split.train.is_vectors:
            raise InputError(f"{option} is about images, and {spec} holds vectors; leave it out")
    parts = _counts(spec, split)
    bad = _bad_images(split) if images else []
    if as_json:
        said = {"source": spec, "parts": parts, "missing": split.missing, "notes": split.notes, "bad_images": bad}
        print_json(said)
    else:
        keys = ["part", "images", "images_expected", "classes", "classes_expected"]
        print_table(
            ["part", "images", "expected", "classes", "expected"],
            [["" if part[key] is None else str(part[key]) for key in keys] for part in parts],
            align="lllll",
        )
        for line in (*split.notes, *bad):
            print(line)
    complete = not split.missing and all(part["complete"] for part in parts)
    if bad or not (complete or allow_partial):
        raise typer.Exit(1)


def _counts(spec: str, split: Split) -> list[dict[str, str | int | bool | None]]:
    """Counted and official numbers of each part; None where there is no official number."""
    from polyanchor.datasets.splits import OFFICIAL

    named = {
        "train": split.train,
        "test" if split.gallery is None else "query": split.test,
        "gallery": split.gallery,
        "validation": split.validation,
    }
    official = OFFICIAL.get(spec, {})
    rows: list[dict[str, str | int | bool | None]] = []
    for name, items in named.items():
        if items is None:
            continue
        expected = official.get(name)
        counts = len(items), len(items.classes)
        rows.append(
            {
                "part": name,
                "images": counts[0],
                "images_expected": expected.n_images if expected else None,
                "classes": counts[1],
                "classes_expected": expected.n_classes if expected else None,
                "complete": expected is None or counts == (expected.n_images, expected.n_classes),
            }
        )
    return rows


def _bad_images(split: Split) -> list[str]:
    """Read every image; one message for each that cannot be read."""
    from polyanchor._progress import progress
    from polyanchor.datasets.images import BadImageError

    parts: list[Items] = [
        part for part in (split.train, split.test, split.gallery, split.validation) if part is not None
    ]
    reads = [(part, row) for part in parts if not part.is_vectors for row in range(len(part))]
    bad = []
    with progress("reading", total=len(reads), unit="images") as advance:
        for part, row in reads:
            try:
                part.inputs.read(row)  # type: ignore[union-attr]  # vectors were left out above
            except BadImageError as error:
                bad.append(str(error))
            advance(1)
    return bad

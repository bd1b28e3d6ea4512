"""Images stored in Parquet files, as Hugging Face does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from polyanchor._errors import InputError
from polyanchor._extras import load
from polyanchor.data.columns import PARTS, numbered, part_numbers
from polyanchor.data.images import ImageBytes
from polyanchor.data.items import Items
from polyanchor.data.listing import Listing
from polyanchor.data.reading import reading

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")


def read(place: Path) -> Listing:
    """List the images stored in a Parquet file, or in all Parquet files of a folder.

    The image column is called ``image`` or ``img`` and holds encoded bytes, bare or as the Hugging Face pair
    ``{bytes, path}``; the label column is called ``label``, ``labels`` or ``fine_label`` and holds integers
    or texts. A column ``split``, or files of more than one part (``train-...``, ``test-...``, ``query-...``,
    ``gallery-...``), make the split. Class names come from the Hugging Face metadata where there are any. The
    encoded images stay in Arrow memory.

    Args:
        place: a file, or a folder that holds the files itself or in a sub-folder ``data``.

    Raises:
        FileNotFoundError: there is no such file, or no Parquet file in the folder.
        ValueError: no image column, no label column, a label missing, below 0 or of another kind, no rows, or
            a damaged file.
    """
    name = f"parquet:{place}"
    files, notes = _parquet_files(place)
    with reading(name):
        table = read_tables(files)
        if not table.num_rows:
            raise InputError(f"{name} has no rows")
        image = find_column(table, IMAGE_COLUMNS, what=f"{name}: an image column")
        label = find_column(table, LABEL_COLUMNS, what=f"{name}: a label column")
        items = items_of(table, image, label, name=place.stem)
    parts = None
    named = [_part_of(file) or "" for file in files]
    if "split" in table.column_names:
        parts = part_numbers(table["split"].to_pylist(), what=name)
    elif len(set(named)) > 1:  # one part alone, however many files it fills, divides nothing
        parts = [PARTS[part] for part, file in zip(named, files, strict=True) for _ in range(rows_in(file))]
    return Listing(name, items, None if parts is None else torch.tensor(parts, dtype=torch.int64), notes)


def read_tables(files: Sequence[Path]) -> Any:
    """The rows of all files as one Arrow table, nothing copied."""
    parquet = load("pyarrow.parquet", "train")
    tables = []
    for file in files:
        with reading(str(file)):
            tables.append(parquet.read_table(file))
    return load("pyarrow", "train").concat_tables(tables)


def rows_in(file: Path) -> int:
    """Number of rows of a Parquet file, from its footer."""
    return int(load("pyarrow.parquet", "train").read_metadata(file).num_rows)


def find_column(table: Any, names: Sequence[str], *, what: str) -> str:
    """The first of ``names`` that the table has."""
    for name in names:
        if name in table.column_names:
            return name
    raise InputError(
        f"{what} is missing: expected one called {' or '.join(names)}, got {', '.join(table.column_names)}"
    )


def items_of(table: Any, image: str, label: str, *, name: str) -> Items:
    """Items from an image column and a label column of an Arrow table."""
    arrow, compute = load("pyarrow", "train"), load("pyarrow.compute", "train")
    cells, kind = table[image], table.schema.field(image).type
    paths: list[str | None] = [None] * len(cells)
    if arrow.types.is_struct(kind):
        fields = {kind.field(number).name for number in range(kind.num_fields)}
        if "bytes" not in fields:
            raise InputError(f"the image column {image} must hold encoded bytes, got {kind}")
        paths = compute.struct_field(cells, "path").to_pylist() if "path" in fields else paths
        cells = compute.struct_field(cells, "bytes")
    elif not (arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind)):
        raise InputError(f"the image column {image} must hold encoded bytes, got {kind}")
    if table[label].null_count:
        raise InputError(f"the label column {label} is empty in {table[label].null_count} rows; leave them out")
    labels, class_names = numbered(table[label].to_pylist())
    names = [path or f"{name}[{row}]" for row, path in enumerate(paths)]
    return Items(
        ImageBytes(cells, names),
        torch.tensor(labels, dtype=torch.int64),
        class_names or _class_names(table, label),
    )


def _class_names(table: Any, label: str) -> dict[int, str]:
    """Class names from the metadata that the Hugging Face library writes; none if they are not there."""
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {number: str(name) for number, name in enumerate(features[label]["names"])}
    except (KeyError, TypeError, ValueError):  # another library's metadata, or none: names are a nicety
        return {}


def _parquet_files(place: Path) -> tuple[list[Path], tuple[str, ...]]:
    if place.is_file():
        return [place], ()
    files = sorted(place.glob("*.parquet")) or sorted((place / "data").glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"parquet:{place}: no such file, and no folder that holds .parquet files")
    if not any(_part_of(file) for file in files):
        return files, ()
    others = [file.name for file in files if _part_of(file) is None]
    notes = (f"not used, as they belong to no part of the split: {', '.join(others)}",) if others else ()
    return [file for file in files if _part_of(file)], notes


def _part_of(file: Path) -> str | None:
    """The part that a file name begins with: ``train-00000-of-00002.parquet`` -> ``train``."""
    head = file.stem.replace("_", "-").partition("-")[0]
    return head if head in PARTS else None

"""Images stored in Parquet files, as Hugging Face stores them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from polyanchor._errors import InputError
from polyanchor._io import reading
from polyanchor._optional import load
from polyanchor.datasets.formats._tables import PARTS, encodable, encode_labels, of_files, part_numbers
from polyanchor.datasets.images import ImageBytes
from polyanchor.datasets.items import Items
from polyanchor.datasets.splits import SourceItems

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")


def read(place: Path, *, allow_partial: bool = False) -> SourceItems:
    """List the images of a Parquet file, or of all Parquet files of a folder.

    The image column is called ``image`` or ``img`` and holds encoded bytes, bare or as the Hugging Face pair
    ``{bytes, path}``, or paths of image files, absolute or relative to the Parquet file's own folder; the label column
    is called ``label``, ``labels`` or ``fine_label`` and holds integers or texts. Column names may be in any case.
    The split is a column ``split``, or files of more than one part: ``train-...``, ``validation-...``, ``test-...``,
    ``query-...`` and ``gallery-...``, in any case, or files in folders of these names. Files may differ in the order of
    their columns, the width of their integers and in columns that are not read. Class names come from the Hugging Face
    metadata. The encoded images stay in Arrow memory.

    Args:
        place: a file, or a folder that holds the files itself, in a sub-folder ``data``, or in one folder per part
            (``train/0000.parquet``), possibly below the configuration's (``default/train/0000.parquet``).
        allow_partial: leave out rows whose image file is missing; otherwise they are an error.

    Raises:
        FileNotFoundError: there is no such file, or no Parquet file in the folder.
        ValueError: no image or label column, a label missing, below 0 or of another kind, no rows, an image file
            missing, files that do not fit each other, or a damaged file.
    """
    name = f"parquet:{place}"
    files, notes = _parquet_files(place)
    with reading(name):
        tables = read_tables(files, {"an image column": IMAGE_COLUMNS, "a label column": LABEL_COLUMNS}, ("split",))
        table = joined(tables)
        if not table.num_rows:
            raise InputError(f"{name} has no rows")
        image, label, *split = table.column_names
        words: list[object] = []
        if split:
            words = table[split[0]].to_pylist()
        elif len({_part_of(file) for file in files}) > 1:  # one part alone, however many files, divides nothing
            words = [_part_of(file) for file, rows in zip(files, tables, strict=True) for _ in range(rows.num_rows)]
        parts = None
        if words:
            parts, more = part_numbers(words, what=name)
            notes += more
        if _holds_paths(table[image]):
            labels, class_names = _labels(table, label)
            root = place if place.is_dir() else place.parent
            paths = _paths(root, files, [rows[image] for rows in tables])
            encodable(paths, what=name)
            listing = of_files(
                name, root, paths, labels, parts=parts, class_names=class_names, allow_partial=allow_partial
            )
            return listing.noted(notes)
        items = items_of(table, image, label, name=place.stem)
    return SourceItems(name, items, None if parts is None else torch.tensor(parts, dtype=torch.int64), notes)


def read_tables(files: Sequence[Path], required: Mapping[str, Sequence[str]], more: Sequence[str] = ()) -> list[Any]:
    """The required columns of each file as an Arrow table; encoded images are not copied.

    Args:
        files: one or more; their tables come out with equal columns, types and order.
        required: description of a column, for messages -> the names it may have.
        more: optional columns.

    Raises:
        InputError: a file lacks a column, or differs in a type from the first; the message begins with the file.
    """
    parquet = load("pyarrow.parquet", "train")
    tables: list[Any] = []
    for file in files:
        with reading(f"parquet:{file}"):
            columns = parquet.read_schema(file).names
            names = [_find_column(columns, known, what=f"parquet:{file}: {what}") for what, known in required.items()]
            names += [name for name in columns if name.casefold() in more]
            tables.append(_plain(parquet.read_table(file, columns=names, partitioning=None).select(names)))
            for ours, first in zip(tables[-1].schema, tables[0].schema, strict=False):
                if ours.type != first.type:
                    raise InputError(
                        f"its column {ours.name} holds {ours.type}, that of {files[0].name} {first.type}; "
                        "write both alike"
                    )
            if names != tables[0].column_names:
                raise InputError(
                    f"it has the columns {', '.join(names)}, and {files[0].name} has "
                    f"{', '.join(tables[0].column_names)}; name them alike"
                )
            ours, first = (_class_names(table, names[1]) for table in (tables[-1], tables[0]))
            if ours and first and ours != first:
                raise InputError(f"its metadata names other classes than that of {files[0].name}; write both alike")
    return tables


def joined(tables: Sequence[Any]) -> Any:
    """All rows as one table, without a copy, with the metadata of the first."""
    metadata = tables[0].schema.metadata
    return load("pyarrow", "train").concat_tables([table.replace_schema_metadata(metadata) for table in tables])


def _plain(table: Any) -> Any:
    """The table with one type each for integers, texts and encoded bytes, also within pairs."""
    arrow, compute = load("pyarrow", "train"), load("pyarrow.compute", "train")
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if arrow.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        kind = column.type
        if arrow.types.is_integer(kind):
            beyond = arrow.types.is_uint64(kind) and (compute.max(column).as_py() or 0) >= 2**63
            column = column if beyond else column.cast(arrow.int64())
        elif arrow.types.is_struct(kind):
            fields = [field for field in ("bytes", "path") if kind.get_field_index(field) >= 0]
            children = [_binary(compute.struct_field(column, field)) for field in fields]
            column = compute.make_struct(*children, field_names=fields) if fields else column
        columns[name] = _binary(column)
    return arrow.table(columns, metadata=table.schema.metadata)


def _binary(column: Any) -> Any:
    """Texts as ``string``, bytes as ``large_binary``; other columns unchanged."""
    arrow = load("pyarrow", "train")
    types = arrow.types
    if types.is_large_string(column.type) or types.is_string_view(column.type) or types.is_null(column.type):
        return column.cast(arrow.string())
    if types.is_binary(column.type) or types.is_binary_view(column.type) or types.is_fixed_size_binary(column.type):
        return column.cast(arrow.large_binary())
    return column


def _find_column(columns: Sequence[str], names: Sequence[str], *, what: str) -> str:
    """The column with the first of ``names`` that occurs, in any case."""
    column = next((column for name in names for column in columns if column.casefold() == name), None)
    if column is None:
        raise InputError(f"{what} is missing: expected one called {' or '.join(names)}, got {', '.join(columns)}")
    return column


def items_of(table: Any, image: str, label: str, *, name: str) -> Items:
    """Items from an image column of encoded bytes and a label column of an Arrow table."""
    arrow, compute = load("pyarrow", "train"), load("pyarrow.compute", "train")
    cells = table[image]
    paths: list[str | None] = [None] * len(cells)
    if arrow.types.is_struct(cells.type) and cells.type.get_field_index("bytes") >= 0:
        if cells.type.get_field_index("path") >= 0:
            paths = compute.struct_field(cells, "path").to_pylist()
        cells = compute.struct_field(cells, "bytes")
    if not arrow.types.is_large_binary(cells.type):
        raise InputError(f"the image column {image} must hold encoded bytes, or paths of files, got {cells.type}")
    labels, class_names = _labels(table, label)
    names = [path or f"{name}[{row}]" for row, path in enumerate(paths)]
    return Items(ImageBytes(cells, names), torch.tensor(labels, dtype=torch.int64), class_names)


def _labels(table: Any, label: str) -> tuple[list[int], dict[int, str]]:
    """Class ids and class names of a label column."""
    if table[label].null_count:
        raise InputError(f"the label column {label} is empty in {table[label].null_count} rows; leave them out")
    labels, class_names = encode_labels(table[label].to_pylist())
    return labels, class_names or _class_names(table, label)


def _holds_paths(column: Any) -> bool:
    """Whether the images are paths of files: texts, or pairs without bytes."""
    types, compute = load("pyarrow", "train").types, load("pyarrow.compute", "train")
    if not types.is_struct(column.type):
        return bool(types.is_string(column.type))
    if column.type.get_field_index("path") < 0:
        return False
    bare = column.type.get_field_index("bytes") < 0 or compute.struct_field(column, "bytes").null_count == len(column)
    return bare and compute.struct_field(column, "path").null_count < len(column)


def _paths(root: Path, files: Sequence[Path], columns: Sequence[Any]) -> list[str]:
    """Image paths relative to ``root``; in the files they are relative to the file's own folder."""
    types, compute = load("pyarrow", "train").types, load("pyarrow.compute", "train")
    paths: list[str] = []
    for file, column in zip(files, columns, strict=True):
        texts = (compute.struct_field(column, "path") if types.is_struct(column.type) else column).to_pylist()
        if not all(texts):
            raise InputError(f"parquet:{file}: the path of an image is empty in {sum(not t for t in texts)} rows")
        folder = file.parent.relative_to(root).as_posix()
        paths += texts if folder == "." else [text if text.startswith("/") else f"{folder}/{text}" for text in texts]
    return paths


def _class_names(table: Any, label: str) -> dict[int, str]:
    """Class names from the metadata of the Hugging Face library, if there are any."""
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {number: str(name) for number, name in enumerate(features[label]["names"])}
    except (KeyError, TypeError, ValueError):  # another library's metadata, or none
        return {}


def _parquet_files(place: Path) -> tuple[list[Path], tuple[str, ...]]:
    if place.is_file():
        return [place], ()
    files = _directly_in(place) or _directly_in(place / "data") or _in_parts(place)
    if not files:
        raise FileNotFoundError(f"parquet:{place}: no such file, and no folder that holds .parquet files")
    if not any(_part_of(file) for file in files):
        return files, ()
    others = [file.name for file in files if _part_of(file) is None]
    notes = (f"not used, as they belong to no part of the split: {', '.join(others)}",) if others else ()
    return [file for file in files if _part_of(file)], notes


def _directly_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.suffix.lower() == ".parquet" and file.is_file())


def _in_parts(place: Path) -> list[Path]:
    """The files in folders named for parts, in ``place`` or in its only configuration."""

    def in_parts(folder: Path) -> list[Path]:
        return [file for part in sorted(folder.iterdir()) if _word(part.name) for file in _directly_in(part)]

    if not place.is_dir() or (files := in_parts(place)):
        return files if place.is_dir() else []
    configurations = {folder: in_parts(folder) for folder in sorted(place.iterdir()) if folder.is_dir()}
    configurations = {folder: files for folder, files in configurations.items() if files}
    if len(configurations) > 1:
        names = ", ".join(folder.name for folder in configurations)
        raise InputError(f"parquet:{place} holds the configurations {names}; name one of these folders")
    return next(iter(configurations.values()), [])


def _part_of(file: Path) -> str | None:
    """Part of ``train-00000-of-00002.parquet`` or ``train/0000.parquet``, by its name or its folder's."""
    return _word(file.name) or (_word(file.parent.name) if file.stem.isdigit() else None)


def _word(name: str) -> str | None:
    """Part that a name begins with; Hugging Face calls the first rows of a large one ``partial-train``.

    Example:
        >>> _word("Validation-00000-of-00001.parquet"), _word("partial-train"), _word("trains.parquet")
        ('validation', 'train', None)
    """
    head = re.match(r"[a-z]*", name.casefold().removeprefix("partial-"))
    return head[0] if head and head[0] in PARTS else None

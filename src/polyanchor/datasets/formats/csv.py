"""Images listed in a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from polyanchor._errors import InputError
from polyanchor._io import reading
from polyanchor.datasets.formats._tables import encode_labels, missing_rows, of_files, part_numbers
from polyanchor.datasets.splits import SourceItems

# Our name of a column -> the names it may have, in any case.
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "file_name", "filename", "file", "image", "image_path", "filepath"),
    "label": ("label", "class", "target", "class_name", "labels", "category"),
    "split": ("split", "part", "subset", "set"),
}
_SEPARATORS = ",;\t|"
_MISSING = frozenset({"nan", "none", "null", "na", "n/a", "<na>"})


def read(file: Path, *, allow_partial: bool) -> SourceItems:
    """List the images of a CSV file with the columns ``path``, ``label`` and optionally ``split``.

    Headings may be in any case and have other usual names (``file_name``, ``image``; ``class``, ``target``). Fields
    are separated by a comma, semicolon, tab or ``|``, as in the heading; space around a field and the case of a part's
    name are ignored. A backslash separates folders where no file has it in its name.

    Args:
        file: UTF-8 text with a heading; ``path`` is absolute or relative to the file's own folder.
        allow_partial: leave out rows whose image is missing; otherwise they are an error.

    Raises:
        InputError: a column is missing, a row has fewer or more fields than the heading, an image is missing, a label
            is below 0, empty or a missing value (``nan``, ``NA``) without quotes, or the file is not CSV in UTF-8.
    """
    name = f"csv:{file}"
    with reading(name):
        text = file.read_text(encoding="utf-8-sig")
        columns, rows, quoted = _table(name, text)
    labels, class_names = encode_labels(_labels(name, columns["label"], rows, quoted))
    parts, notes = None, _alike(list(class_names.values()))
    if "split" in columns:
        parts, more = part_numbers([row[columns["split"]] for row in rows], what=name)
        notes += more
    listing = of_files(
        name,
        file.parent,
        _paths(file.parent, [row[columns["path"]] for row in rows]),
        labels,
        parts=parts,
        class_names=class_names,
        allow_partial=allow_partial,
    )
    return listing.noted(notes)


def _table(name: str, text: str) -> tuple[dict[str, int], list[list[str]], list[list[bool]]]:
    """Position of each of our columns, the rows, and which of their fields were quoted."""
    lines = text.splitlines(keepends=True)
    heading = lines[0] if lines else ""
    separator = max(_SEPARATORS, key=heading.count)
    table = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
    fields = [field.strip() for field in table[0]] if table else []
    folded, columns = [field.casefold() for field in fields], {}
    for ours, names in _COLUMNS.items():
        positions = [folded.index(name) for name in names if name in folded]
        if positions:
            columns[ours] = positions[0]
    absent = [key for key in ("path", "label") if key not in columns]
    if absent:
        raise InputError(
            f"{name}: expected a heading with the columns path,label and perhaps split; "
            f"{' and '.join(absent)} missing in {separator.join(fields) or 'an empty file'}"
        )
    rows = []
    for number, row in enumerate(table[1:], 1):
        if not any(field.strip() for field in row):
            continue  # an empty line, as many editors leave one at the end
        if len(row) > len(fields):
            raise InputError(
                f"{name}: row {number} after the heading has {len(row)} fields, expected {len(fields)}: "
                f"{separator.join(row)!r}; put quotes around a field that holds {separator!r}"
            )
        row = [field.strip() for field in row] + [""] * (len(fields) - len(row))
        empty = [ours for ours, position in columns.items() if not row[position]]
        if empty:
            raise InputError(f"{name}: row {number} after the heading: {' and '.join(empty)} empty")
        rows.append(row)
    if not rows:
        raise InputError(f"{name} has a heading and no rows")
    return columns, rows, _quoted(text, separator)


def _quoted(text: str, separator: str) -> list[list[bool]]:
    """Which fields are quoted, as the csv module does not tell; empty if none is."""
    if '"' not in text:
        return []
    kept = list(csv.reader(text.splitlines(keepends=True), delimiter=separator, quoting=csv.QUOTE_NONE))
    return [[field.strip().startswith('"') for field in row] for row in kept[1:] if any(map(str.strip, row))]


def _labels(name: str, column: int, rows: Sequence[Sequence[str]], quoted: Sequence[Sequence[bool]]) -> list[str]:
    for number, row in enumerate(rows):
        in_quotes = len(quoted) == len(rows) and column < len(quoted[number]) and quoted[number][column]
        if row[column].casefold() in _MISSING and not in_quotes:
            raise InputError(
                f"{name}: row {number + 1} after the heading has the label {row[column]}, which is how programs write "
                "a missing one; leave the row out, or put quotes around the label if it is the class's name"
            )
    return [row[column] for row in rows]


def _paths(root: Path, paths: list[str]) -> list[str]:
    """Paths with ``/`` in place of backslashes, unless a file has these in its name."""
    if not any("\\" in path for path in paths):
        return paths
    missing = set(missing_rows(root, paths))
    return [path.replace("\\", "/") if row in missing else path for row, path in enumerate(paths)]


def _alike(names: list[str]) -> tuple[str, ...]:
    """A note about names that differ in case or space alone: mostly one class under two names."""
    seen: dict[str, str] = {}
    for name in names:
        key = " ".join(name.casefold().split())
        if key in seen:
            return (f"classes {seen[key]!r} and {name!r} differ in case or space alone: are they one class?",)
        seen[key] = name
    return ()

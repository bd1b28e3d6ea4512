"""Images listed in a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from polyanchor._errors import InputError
from polyanchor._io import reading
from polyanchor.datasets.formats._tables import encode_labels, measured_val, missing_rows, of_files, part_numbers
from polyanchor.datasets.splits import SourceItems

# What the columns may be called, in any case; the first is our own name.
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "file_name", "filename", "file", "image", "image_path", "filepath"),
    "label": ("label", "class", "target", "class_name", "labels", "category"),
    "split": ("split", "part", "subset", "set"),
}
_SEPARATORS = ",;\t|"
_MISSING = frozenset({"nan", "none", "null", "na", "n/a", "<na>"})


def read(file: Path, *, allow_partial: bool) -> SourceItems:
    """List the images of a CSV file with the columns ``path``, ``label`` and perhaps ``split``.

    Headings may be in any case and called as others call them (``file_name``, ``image``; ``class``, ``target``). Fields
    are separated by a comma, semicolon, tab or ``|``, as the heading shows; space around a field does not count, and
    neither does the case of a part's name. Backslashes separate folders where no file of that name is there.

    Args:
        file: UTF-8 text with a heading; ``path`` is absolute or relative to the file's own folder.
        allow_partial: leave out rows whose image is missing; otherwise they are an error.

    Raises:
        InputError: a column is missing, a row has fewer or more fields than the heading, an image is missing, a label
            is below 0, empty or a word for a missing one (``nan``, ``NA``) without quotes, or the file is no CSV
            file in UTF-8.
    """
    name = f"csv:{file}"
    with reading(name):
        text = file.read_text(encoding="utf-8-sig")
        columns, rows, quoted = _table(name, text)
    labels, class_names = encode_labels(_labels(name, columns["label"], rows, quoted))
    words = [row[columns["split"]] for row in rows] if "split" in columns else []
    parts = part_numbers(words, what=name) if words else None
    listing = of_files(
        name,
        file.parent,
        _paths(file.parent, [row[columns["path"]] for row in rows]),
        labels,
        parts=parts,
        class_names=class_names,
        allow_partial=allow_partial,
    )
    return listing.noted(_alike(list(class_names.values())) + (measured_val(words) if parts is not None else ()))


def _table(name: str, text: str) -> tuple[dict[str, int], list[list[str]], list[list[bool]]]:
    """Our column name -> its place, the rows, and which of their fields were quoted."""
    lines = text.splitlines(keepends=True)
    heading = lines[0] if lines else ""
    separator = max(_SEPARATORS, key=heading.count)
    table = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
    fields = [field.strip() for field in table[0]] if table else []
    folded, columns = [field.casefold() for field in fields], {}
    for ours, known in _COLUMNS.items():
        places = [folded.index(word) for word in known if word in folded]
        if places:
            columns[ours] = places[0]
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
        empty = [ours for ours, place in columns.items() if not row[place]]
        if empty:
            raise InputError(f"{name}: row {number} after the heading: {' and '.join(empty)} empty")
        rows.append(row)
    if not rows:
        raise InputError(f"{name} has a heading and no rows")
    return columns, rows, _quoted(text, separator)


def _quoted(text: str, separator: str) -> list[list[bool]]:
    """Which fields stand in quotes; the csv module does not say. Empty where there are no quotes at all."""
    if '"' not in text:
        return []
    kept = list(csv.reader(text.splitlines(keepends=True), delimiter=separator, quoting=csv.QUOTE_NONE))
    return [[field.strip().startswith('"') for field in row] for row in kept[1:] if any(map(str.strip, row))]


def _labels(name: str, place: int, rows: Sequence[Sequence[str]], quoted: Sequence[Sequence[bool]]) -> list[str]:
    for number, row in enumerate(rows):
        said = len(quoted) == len(rows) and place < len(quoted[number]) and quoted[number][place]
        if row[place].casefold() in _MISSING and not said:
            raise InputError(
                f"{name}: row {number + 1} after the heading has the label {row[place]}, which is how programs write a "
                "missing one; leave the row out, or put quotes around the label if it is the class's name"
            )
    return [row[place] for row in rows]


def _paths(root: Path, paths: list[str]) -> list[str]:
    """Paths with ``/`` between folders, where they were written with backslashes."""
    if not any("\\" in path for path in paths):
        return paths
    missing = set(missing_rows(root, paths))
    return [path.replace("\\", "/") if row in missing else path for row, path in enumerate(paths)]


def _alike(names: list[str]) -> tuple[str, ...]:
    """A note about names that only differ in case or in the space within them: mostly one class under two names."""
    seen: dict[str, str] = {}
    for name in names:
        key = " ".join(name.casefold().split())
        if key in seen:
            return (f"classes {seen[key]!r} and {name!r} differ in case or space alone: are they one class?",)
        seen[key] = name
    return ()

"""Images listed in a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path

from polyanchor._errors import InputError
from polyanchor.data.columns import numbered, part_numbers
from polyanchor.data.files import of_files
from polyanchor.data.listing import Listing
from polyanchor.data.reading import reading


def read(file: Path, *, allow_partial: bool) -> Listing:
    """List the images of a CSV file with the columns ``path``, ``label`` and perhaps ``split``.

    Args:
        file: UTF-8 text with a heading; ``path`` is absolute or relative to the file's own folder.
        allow_partial: leave out rows whose image is missing; otherwise they are an error.

    Raises:
        ValueError: a column is missing, a row is short, an image is missing, a label is below 0, or the file
            is no CSV file in UTF-8.
    """
    name = f"csv:{file}"
    with reading(name), file.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        absent = [key for key in ("path", "label") if key not in (reader.fieldnames or ())]
        if absent:
            raise InputError(
                f"{name}: expected a heading with the columns path,label and perhaps split; "
                f"{' and '.join(absent)} missing in {','.join(reader.fieldnames or ()) or 'an empty file'}"
            )
        wanted = [key for key in ("path", "label", "split") if key in (reader.fieldnames or ())]
        rows = list(reader)
    for number, row in enumerate(rows):
        empty = [key for key in wanted if not row[key]]
        if empty:
            raise InputError(f"{name}: row {number + 1} after the heading: {' and '.join(empty)} empty")
    if not rows:
        raise InputError(f"{name} has a heading and no rows")
    labels, class_names = numbered([row["label"] for row in rows])
    parts = part_numbers([row["split"] for row in rows], what=name) if "split" in wanted else None
    return of_files(
        name,
        file.parent,
        [row["path"] for row in rows],
        labels,
        parts=parts,
        class_names=class_names,
        allow_partial=allow_partial,
    )

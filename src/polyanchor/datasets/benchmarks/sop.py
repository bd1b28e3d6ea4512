"""Stanford Online Products in its official layout: ``Ebay_train.txt``, ``Ebay_test.txt`` and the images."""

from __future__ import annotations

from pathlib import Path

from polyanchor._errors import InputError
from polyanchor._io import text_lines
from polyanchor.datasets.formats._tables import locate, official
from polyanchor.datasets.splits import SourceItems


def read(root: Path, *, allow_partial: bool) -> SourceItems:
    """List Stanford Online Products with its official split.

    Args:
        root: the folder ``Stanford_Online_Products``, or the one that holds it.
        allow_partial: accept an incomplete copy.
    """
    folder = locate(root, ["Stanford_Online_Products"], "Ebay_train.txt", what="sop (Stanford Online Products)")
    paths: list[str] = []
    labels: list[int] = []
    parts: list[int] = []
    for part, file in enumerate(("Ebay_train.txt", "Ebay_test.txt")):
        for number, line in enumerate(text_lines(folder / file)):
            fields = line.split()
            if number == 0 or not fields:  # the heading: image_id class_id super_class_id path
                continue
            if len(fields) != 4 or not fields[1].isdecimal():
                raise InputError(
                    f"{folder / file}, line {number + 1}: expected 'image class super_class path', got {line!r}"
                )
            paths.append(fields[3])
            labels.append(int(fields[1]) - 1)
            parts.append(part)
    return official("sop", folder, paths, labels, parts=parts, allow_partial=allow_partial)

"""CUB-200-2011 in its official layout: ``CUB_200_2011/{images.txt,image_class_labels.txt,images/}``."""

from __future__ import annotations

from pathlib import Path

from polyanchor._errors import InputError
from polyanchor._io import reading, text_lines
from polyanchor.datasets.formats._tables import locate, official
from polyanchor.datasets.splits import SourceItems


def read(root: Path, *, allow_partial: bool) -> SourceItems:
    """List CUB-200-2011; classes 0 to 99 train, 100 to 199 test.

    The official ``train_test_split.txt`` is not read: it divides the images of every class, for classification.

    Args:
        root: the folder ``CUB_200_2011``, or the one that holds it.
        allow_partial: accept an incomplete copy.
    """
    folder = locate(root, ["CUB_200_2011"], "images.txt", what="cub200 (CUB-200-2011)")
    paths = _table(folder / "images.txt")
    classes = _table(folder / "image_class_labels.txt")
    without = [path for image, path in paths.items() if image not in classes]
    if without:
        raise InputError(
            f"{folder / 'image_class_labels.txt'}: no class for {without[0]} and {len(without) - 1} more images"
        )
    with reading(str(folder / "image_class_labels.txt")):
        labels = [int(classes[image]) - 1 for image in paths]
    titles = _table(folder / "classes.txt") if (folder / "classes.txt").is_file() else {}
    with reading(str(folder / "classes.txt")):
        names = {int(number) - 1: name for number, name in titles.items()}
    return official(
        "cub200",
        folder / "images",
        list(paths.values()),
        labels,
        parts=[int(label >= 100) for label in labels],
        class_names=names,
        allow_partial=allow_partial,
    )


def _table(file: Path) -> dict[str, str]:
    """``number text`` lines as a mapping, in the file's order."""
    table = {}
    for count, line in enumerate(text_lines(file), 1):
        fields = line.split(maxsplit=1)
        if len(fields) == 1:
            raise InputError(f"{file}, line {count}: expected a number and a text, got {line!r}")
        if fields:
            table[fields[0]] = fields[1].strip()
    return table

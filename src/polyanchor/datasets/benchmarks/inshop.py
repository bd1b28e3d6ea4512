"""DeepFashion In-Shop Clothes Retrieval: ``list_eval_partition.txt`` and ``img/``."""

from __future__ import annotations

from pathlib import Path

from polyanchor._errors import InputError
from polyanchor._io import text_lines
from polyanchor.datasets.formats._tables import locate, official
from polyanchor.datasets.splits import OFFICIAL, SourceItems

_FILE = "list_eval_partition.txt"
_PARTS = {"train": 0, "query": 1, "gallery": 2}
_FOLDERS = ["inshop", "In-shop Clothes Retrieval Benchmark", "In-Shop", "In-shop", "In_shop"]


def read(root: Path, *, allow_partial: bool) -> SourceItems:
    """List In-Shop with its official training, query and gallery images.

    Items (one garment each) are the classes: 0 to 3,996 train, 3,997 to 7,981 test, each in the order of their official
    ids.

    Args:
        root: the folder of the data set, or the one that holds it. The list may lie in ``Eval/`` and the images in
            ``Img/``, as in the archives.
        allow_partial: accept an incomplete copy.
    """
    what = "inshop (In-Shop Clothes Retrieval)"
    try:
        folder = locate(root, _FOLDERS, _FILE, what=what)
        file = folder / _FILE
    except FileNotFoundError:
        folder = locate(root, _FOLDERS, f"Eval/{_FILE}", what=what + f" or its {_FILE}")
        file = folder / "Eval" / _FILE
    rows = _rows(file)
    train, test = (sorted({item for _, item, part in rows if (part == 0) == first}) for first in (True, False))
    shared = set(train) & set(test)
    if shared:
        raise InputError(
            f"{file}: item {min(shared)} is in the training part and in another; the file is not the official one"
        )
    begin = OFFICIAL["inshop"]["query"].classes.start
    ids = dict(zip(train, range(len(train)), strict=True)) | {item: begin + n for n, item in enumerate(test)}
    return official(
        "inshop",
        folder / "Img" if (folder / "Img" / "img").is_dir() else folder,
        [path for path, _, _ in rows],
        [ids[item] for _, item, _ in rows],
        parts=[part for _, _, part in rows],
        class_names={number: item for item, number in ids.items()},
        allow_partial=allow_partial,
    )


def _rows(file: Path) -> list[tuple[str, str, int]]:
    """(path, item, part) of each line after the number of images and the heading."""
    rows = []
    for number, line in enumerate(text_lines(file)):
        fields = line.split()
        if number < 2 or not fields:
            continue
        if len(fields) != 3 or fields[2] not in _PARTS:
            raise InputError(f"{file}, line {number + 1}: expected 'image item train|query|gallery', got {line!r}")
        rows.append((fields[0], fields[1], _PARTS[fields[2]]))
    return rows

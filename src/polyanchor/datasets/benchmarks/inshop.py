"""DeepFashion In-Shop Clothes Retrieval: ``list_eval_partition.txt`` and ``img/``."""

from __future__ import annotations

from pathlib import Path

from polyanchor._errors import InputError
from polyanchor._io import text_lines
from polyanchor.datasets.formats._tables import locate, of_files
from polyanchor.datasets.splits import OFFICIAL, SourceItems

_FILE = "list_eval_partition.txt"
_PARTS = {"train": 0, "query": 1, "gallery": 2}
_FOLDERS = ["inshop", "In-shop Clothes Retrieval Benchmark", "In-Shop", "In-shop", "In_shop"]


def read(root: Path, *, allow_partial: bool) -> SourceItems:
    """List In-Shop with its official training, query and gallery images.

    Items (one garment each) are the classes. Those to train on are numbered 0 to 3,996 and those to search
    3,997 to 7,981, each in the order of their official id.

    Args:
        root: the folder of the data set, or the one that holds it. The list may lie in ``Eval/`` and the
            images in ``Img/``, as they come in the archives.
        allow_partial: accept a copy that is not complete.
    """
    what = "inshop (In-Shop Clothes Retrieval)"
    try:
        place = locate(root, _FOLDERS, _FILE, what=what)
        file = place / _FILE
    except FileNotFoundError:
        place = locate(root, _FOLDERS, f"Eval/{_FILE}", what=what + f" or its {_FILE}")
        file = place / "Eval" / _FILE
    rows = _rows(file)
    train, test = (sorted({item for _, item, part in rows if (part == 0) == first}) for first in (True, False))
    shared = set(train) & set(test)
    if shared:
        raise InputError(
            f"{file}: item {min(shared)} is in the training part and in another; the file is not the official one"
        )
    begin = OFFICIAL["inshop"]["query"].classes.start
    ids = dict(zip(train, range(len(train)), strict=True)) | {item: begin + n for n, item in enumerate(test)}
    listing = of_files(
        "inshop",
        place / "Img" if (place / "Img" / "img").is_dir() else place,
        [path for path, _, _ in rows],
        [ids[item] for _, item, _ in rows],
        parts=[part for _, _, part in rows],
        class_names={number: item for item, number in ids.items()},
        allow_partial=allow_partial,
    )
    return listing.verified(tuple(OFFICIAL["inshop"].values()), allow_partial=allow_partial)


def _rows(file: Path) -> list[tuple[str, str, int]]:
    """(path, item, part) of each line; the first two lines are the number of images and the heading."""
    rows = []
    for number, line in enumerate(text_lines(file)):
        fields = line.split()
        if number < 2 or not fields:
            continue
        if len(fields) != 3 or fields[2] not in _PARTS:
            raise InputError(f"{file}, line {number + 1}: expected 'image item train|query|gallery', got {line!r}")
        rows.append((fields[0], fields[1], _PARTS[fields[2]]))
    return rows

"""Stanford Cars (Cars-196), in the layout of torchvision or as the older single archive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from polyanchor._errors import InputError
from polyanchor._io import reading
from polyanchor._optional import load
from polyanchor.datasets.formats._tables import locate, official
from polyanchor.datasets.splits import SourceItems


def read(root: Path, *, allow_partial: bool) -> SourceItems:
    """List Stanford Cars; classes 0 to 97 train, 98 to 195 test.

    The official training and test images are merged: that split divides the images of every class, for
    classification.

    Args:
        root: the folder ``stanford_cars``, or the one that holds it. It holds ``cars_train/``,
            ``devkit/cars_train_annos.mat``, ``devkit/cars_meta.mat``, ``cars_test/`` and
            ``cars_test_annos_withlabels.mat``; or else ``car_ims/`` and ``cars_annos.mat``.
        allow_partial: accept an incomplete copy, for example the training half alone.
    """
    folders = ["stanford_cars", "cars196"]
    what = "cars196 (Stanford Cars)"
    try:
        folder = locate(root, folders, "devkit/cars_train_annos.mat", what=what)
    except FileNotFoundError:
        folder = locate(root, folders, "cars_annos.mat", what=what + " or its devkit/cars_train_annos.mat")
        paths, labels = _annotations(folder / "cars_annos.mat", "relative_im_path")
        names = _names(folder / "cars_annos.mat")
    else:
        paths, labels, names = _two_archives(folder)
    parts = [int(label >= 98) for label in labels]
    return official("cars196", folder, paths, labels, parts=parts, class_names=names, allow_partial=allow_partial)


def _two_archives(root: Path) -> tuple[list[str], list[int], dict[int, str]]:
    paths: list[str] = []
    labels: list[int] = []
    # without the test labels, which came as a separate file, the count check names what is missing
    for folder, file in (
        ("cars_train", "devkit/cars_train_annos.mat"),
        ("cars_test", "cars_test_annos_withlabels.mat"),
    ):
        if (root / file).is_file():
            names, ids = _annotations(root / file, "fname")
            paths += [f"{folder}/{name}" for name in names]
            labels += ids
    meta = root / "devkit" / "cars_meta.mat"
    return paths, labels, _names(meta) if meta.is_file() else {}


def _annotations(file: Path, path: str) -> tuple[list[str], list[int]]:
    """Paths and 0-based class ids of the rows of ``annotations``."""
    rows = _column(file, "annotations")
    absent = {path, "class"} - set(rows.dtype.names or ())
    if absent:
        raise InputError(
            f"{file}: annotations must have the fields {path} and class; {', '.join(sorted(absent))} missing"
        )
    with reading(str(file)):
        return [str(name) for name in rows[path]], [int(number) - 1 for number in rows["class"]]


def _names(file: Path) -> dict[int, str]:
    return {number: str(name) for number, name in enumerate(_column(file, "class_names"))}


def _column(file: Path, name: str) -> Any:
    matlab = load("scipy.io.matlab", "train")
    with reading(str(file), matlab.MatReadError, NotImplementedError):  # not implemented: version 7.3, which is HDF5
        table = load("scipy.io", "train").loadmat(str(file), squeeze_me=True)
    if name not in table:
        held = ", ".join(key for key in table if not key.startswith("__")) or "nothing"
        raise InputError(f"{file}: expected the variable {name}, got {held}; take the file of the official devkit")
    return load("numpy", "train").atleast_1d(table[name])  # squeezing made a single row a bare value

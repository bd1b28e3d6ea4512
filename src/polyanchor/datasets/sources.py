"""Data sources by name: turns the text of ``--data`` into a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._io import user_path
from polyanchor.datasets.benchmarks import cars196, cifar100, cub200, digits, inshop, sop
from polyanchor.datasets.formats import csv as csv_list
from polyanchor.datasets.formats import folder, parquet, vectors
from polyanchor.datasets.images import limited
from polyanchor.datasets.items import Items, Split
from polyanchor.datasets.spec import KINDS, MAX_PIXELS, source_spec
from polyanchor.datasets.splits import SourceItems, checked


@dataclass(frozen=True)
class SourceInfo:
    """Summary of a data source.

    Attributes:
        name: as in :func:`polyanchor.datasets.sources.open_source`; capital letters stand for a path.
        what: one line.
        classes: training and test classes, as text.
        images: training and test images, as text.
        citation: the paper to cite; empty for the user's own data.
        where: how to get it.
        licence: its terms as far as they are known.
    """

    name: str
    what: str
    classes: str
    images: str
    citation: str = ""
    where: str = ""
    licence: str = ""


KNOWN: tuple[SourceInfo, ...] = (
    SourceInfo(
        "digits",
        "handwritten digits, 8 x 8, for trying things out",
        "5 / 5",
        "901 / 896",
        "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
        "comes with scikit-learn",
        "CC BY 4.0 (UCI)",
    ),
    SourceInfo(
        "cub200",
        "birds, fine-grained (CUB-200-2011)",
        "100 / 100",
        "5,864 / 5,924",
        "Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, CNS-TR-2011-001, 2011",
        "Caltech data repository: the archive CUB_200_2011",
        "research and education, non-commercial",
    ),
    SourceInfo(
        "cars196",
        "cars, fine-grained (Stanford Cars)",
        "98 / 98",
        "8,054 / 8,131",
        "Krause et al., 3D Object Representations for Fine-Grained Categorization, 3dRR, 2013",
        "the official site is gone; copies in torchvision's layout are on data set hubs",
        "research, non-commercial",
    ),
    SourceInfo(
        "sop",
        "products from online sales (Stanford Online Products)",
        "11,318 / 11,316",
        "59,551 / 60,502",
        "Oh Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, CVPR 2016",
        "Stanford CVGL: the archive Stanford_Online_Products",
    ),
    SourceInfo(
        "inshop",
        "garments, with queries and a gallery (DeepFashion In-Shop)",
        "3,997 / 3,985",
        "25,882 / 14,218 queries in 12,612",
        "Liu et al., DeepFashion: Powering Robust Clothes Recognition and Retrieval, CVPR 2016",
        "MMLAB, on request",
        "research, non-commercial, by agreement",
    ),
    SourceInfo(
        "cifar100",
        "small pictures with fine and coarse labels; a closed set",
        "100 / the same",
        "50,000 / 10,000",
        "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        "Hugging Face hub, as train and test Parquet files",
    ),
    SourceInfo("folder:DIR", "images in one folder per class, nested if you like", "yours", "yours"),
    SourceInfo("csv:FILE", "a table with the columns path,label[,split]", "yours", "yours"),
    SourceInfo("parquet:FILE-or-DIR", "images inside Parquet files, as Hugging Face stores them", "yours", "yours"),
    SourceInfo("features:FILE", "vectors computed beforehand (.safetensors or .npz)", "yours", "yours"),
)


_OFFICIAL: Mapping[str, Callable[..., SourceItems]] = {
    "cub200": cub200.read,
    "cars196": cars196.read,
    "sop": sop.read,
    "inshop": inshop.read,
}
BENCHMARKS = (*_OFFICIAL, "cifar100")
"""Sources that lie in ``root`` and have official counts."""


def open_source(
    spec: str,
    *,
    root: str | Path = "data",
    allow_partial: bool = False,
    labels: str = "fine",
    train_share: float = 0.5,
    test: str = "",
    drop_shared: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Split:
    """Open a data source and divide it into training and test items. No image is read yet.

    Args:
        spec: ``digits``, ``cub200``, ``cars196``, ``sop``, ``inshop``, ``cifar100``, ``folder:DIR``,
            ``csv:FILE``, ``parquet:FILE-or-DIR`` or ``features:FILE``, or a bare path, see
            :func:`~polyanchor.datasets.spec.source_spec`. Paths start from the working directory.
        root: folder that holds the benchmark data sets (the first six), or the data set itself.
        allow_partial: accept an incomplete copy of a benchmark and lists that name missing images;
            ``Split.notes`` says so.
        labels: ``"fine"`` or ``"coarse"``, for ``cifar100``.
        train_share: share of the classes that train, for sources without a split of their own.
        test: another source to test on. All items of ``spec`` then train and all items of ``test`` are
            searched among themselves; its class ids are shifted beyond the training classes.
        drop_shared: leave out the classes of ``test`` whose name is also a training class's (Omniglot's two
            small sets both hold Greek and Latin). Classes without a name stay.
        max_pixels: limit of an image's pixels, width times height; a larger one cannot be read.

    Raises:
        ValueError: an unknown source, an incomplete copy, or data that cannot be used.
        OSError: a file or folder is missing.

    Example:
        >>> split = open_source("digits")
        >>> len(split.train), split.train.classes.tolist(), len(split.test), split.test.classes.tolist()
        (901, [0, 1, 2, 3, 4], 896, [5, 6, 7, 8, 9])
    """
    source = _limited(_listing(spec, user_path(root), allow_partial=allow_partial, labels=labels), max_pixels)
    if drop_shared and not test:
        raise InputError("drop_shared is for two sources; name the other one with test=, or leave it out")
    if not test:
        return source.split(train_share=train_share)
    if train_share != 0.5:
        raise InputError(
            f"train_share={train_share} cannot apply with test={test!r}: all of {spec} trains; leave it out"
        )
    other = _limited(_listing(test, user_path(root), allow_partial=allow_partial, labels="fine"), max_pixels)
    return _across(source, other, drop_shared=drop_shared)


def open_items(
    spec: str,
    *,
    root: str | Path = "data",
    allow_partial: bool = False,
    labels: str = "fine",
    unclassed: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Items:
    """All items of a data source, regardless of its split. Arguments and errors as for :func:`open_source`.

    With ``unclassed`` the images of ``folder:DIR`` may lie outside of class folders, in a class named ``""``.

    Example:
        >>> len(open_items("digits"))
        1797
    """
    listing = _listing(spec, user_path(root), allow_partial=allow_partial, labels=labels, unclassed=unclassed)
    return _limited(listing, max_pixels).items


def _limited(listing: SourceItems, max_pixels: int) -> SourceItems:
    _check.count("max_pixels", max_pixels)
    if isinstance(listing.items.inputs, torch.Tensor):
        return listing
    return replace(listing, items=replace(listing.items, inputs=limited(listing.items.inputs, max_pixels)))


def _listing(spec: str, root: Path, *, allow_partial: bool, labels: str, unclassed: bool = False) -> SourceItems:
    spec = source_spec(spec)
    kind, colon, name = spec.partition(":")
    if labels != "fine" and spec != "cifar100":
        raise InputError(f"labels={labels!r} is for cifar100 alone, got it with {spec!r}; leave it out")
    if colon and kind in KINDS:
        if not name:
            raise InputError(f"{spec!r} names no path; write {kind}:PATH")
        path = user_path(name)
        if kind == "csv":
            return csv_list.read(path, allow_partial=allow_partial)
        if kind == "folder":
            return folder.read(path, unclassed=unclassed)
        return parquet.read(path, allow_partial=allow_partial) if kind == "parquet" else vectors.read(path)
    if spec == "digits":
        return digits.read()
    if spec == "cifar100":
        return cifar100.read(root, labels=labels, allow_partial=allow_partial)
    if spec in _OFFICIAL:
        return _OFFICIAL[spec](root, allow_partial=allow_partial)
    names = [info.name for info in KNOWN]
    near = _check.nearest(kind, [name.partition(":")[0] for name in names])
    raise InputError(f"the data source must be one of {', '.join(names)}; got {spec!r}{near}")


def _across(source: SourceItems, other: SourceItems, *, drop_shared: bool) -> Split:
    """Train on all of one source, test on all of the other."""
    shift = int(source.items.labels.max()) + 1
    if shift + int(other.items.labels.max()) < 2**63:
        names = {number + shift: name for number, name in other.items.class_names.items()}
        test = replace(other.items, labels=other.items.labels + shift, class_names=names)
    else:  # the sum is beyond 64 bits
        source = replace(source, items=_compact(source.items, 0))
        test = _compact(other.items, len(source.items.classes))
    if source.items.is_vectors != test.is_vectors:
        raise InputError(f"{source.name} and {other.name} must both hold images or both hold vectors")
    if isinstance(test.inputs, Tensor) and isinstance(source.items.inputs, Tensor):
        columns, others = source.items.inputs.shape[1], test.inputs.shape[1]
        if columns != others:
            raise InputError(f"{other.name} must have the {columns} columns of {source.name}, got {others}")
    notes = (*source.notes, *other.notes, f"all of {source.name} trains, all of {other.name} is searched")
    if drop_shared:
        _require_names(source, other)
    trained = set(_occurring(source.items).values())
    shared = {number: name for number, name in _occurring(test).items() if name in trained}
    if shared and drop_shared:
        test = test.subset(~torch.isin(test.labels, torch.tensor(list(shared))))
        notes += (f"{len(shared):,} classes of {other.name} were left out: their names are training classes' too",)
    elif shared:
        # equal names may mean one class, or be chance ("0", "1"): only the user can tell
        notes += (
            f"{len(shared):,} class names are in both sources, the first is {min(shared.values())!r}: where they "
            "mean the same class, it was trained on; data.drop_shared leaves them out",
        )
    return checked(Split(source.name, source.items, test, None, notes, source.missing + other.missing))


def _compact(items: Items, first: int) -> Items:
    """The items with classes renumbered from ``first``."""
    classes, numbers = items.labels.unique(return_inverse=True)
    old_names = items.class_names
    names = {first + new: old_names[old] for new, old in enumerate(classes.tolist()) if old in old_names}
    return replace(items, labels=numbers + first, class_names=names)


def _occurring(items: Items) -> dict[int, str]:
    """Names of the classes that have items."""
    return {number: items.class_names[number] for number in items.classes.tolist() if number in items.class_names}


def _require_names(*listings: SourceItems) -> None:
    for listing in listings:
        if not _occurring(listing.items):
            raise InputError(
                f"drop_shared compares class names, and {listing.name} has none (its classes are numbers); leave "
                "drop_shared out, or give the classes of both sources names"
            )

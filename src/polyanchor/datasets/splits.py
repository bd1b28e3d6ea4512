"""Official splits with the counts that a copy must have, and splits by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from polyanchor._errors import InputError
from polyanchor._io import reading
from polyanchor.datasets.items import Items, Split

_PML = (
    "dataset tests of pytorch-metric-learning 2.8.1, "
    "https://github.com/KevinMusgrave/pytorch-metric-learning/tree/master/tests/datasets"
)
_INSHOP = (
    "list_eval_partition.txt of Liu et al., DeepFashion, CVPR 2016, "
    "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html"
)
_CIFAR = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009, section 3.1"


@dataclass(frozen=True)
class SplitSpec:
    """Classes and counts of one split of a data set.

    Attributes:
        name: data set and split, as ``cars196/train``.
        classes: 0-based class ids that may occur.
        n_images: images in the complete split.
        n_classes: classes in the complete split.
        source: origin of the counts.

    Example:
        >>> import torch
        >>> spec = SplitSpec("toy/train", range(2), n_images=4, n_classes=2, source="this example")
        >>> spec.verify(torch.tensor([0, 0, 1, 1]))
        ()
        >>> spec.verify(torch.tensor([0, 1, 1]), allow_partial=True)[0][:42]
        'toy/train is not the complete data set (3 '
    """

    name: str
    classes: range
    n_images: int
    n_classes: int
    source: str

    def verify(self, labels: Tensor, *, allow_partial: bool = False) -> tuple[str, ...]:
        """Refuse a copy that differs from the official one.

        Args:
            labels: ``(N,)`` int64, 0-based class ids of the copy.
            allow_partial: accept a copy with other counts; foreign classes, a sign of another split, are still refused.

        Returns:
            Notes on the comparability of results; none if the copy is complete.

        Raises:
            ValueError: foreign classes, no items, or other counts.
        """
        classes = labels.unique()
        outside = [label for label in classes.tolist() if label not in self.classes]
        if outside:
            raise InputError(
                f"{self.name}: expected class ids from {self.classes.start} to {self.classes.stop - 1}, "
                f"got {outside[:5]}; these labels belong to another split or another data set"
            )
        counts = f"{len(labels):,} of {self.n_images:,} images, {len(classes):,} of {self.n_classes:,} classes"
        if len(labels) == self.n_images and len(classes) == self.n_classes:
            return ()
        if allow_partial and len(labels):
            return (
                f"{self.name} is not the complete data set ({counts}): numbers are not comparable with published ones",
            )
        raise InputError(
            f"{self.name}: expected {self.n_images:,} images of {self.n_classes:,} classes ({self.source}), found "
            f"{len(labels):,} images of {len(classes):,} classes. Numbers from another copy cannot be compared with "
            "published ones; complete it, or use it as it is with --allow-partial (allow_partial=True)"
        )


# Data set -> split -> its counts.
OFFICIAL: Mapping[str, Mapping[str, SplitSpec]] = MappingProxyType(
    {
        name: MappingProxyType({spec.name.rpartition("/")[2]: spec for spec in specs})
        for name, specs in {
            "cub200": (
                SplitSpec("cub200/train", range(100), 5_864, 100, _PML),
                SplitSpec("cub200/test", range(100, 200), 5_924, 100, _PML),
            ),
            "cars196": (
                SplitSpec("cars196/train", range(98), 8_054, 98, _PML),
                SplitSpec("cars196/test", range(98, 196), 8_131, 98, _PML),
            ),
            "sop": (
                SplitSpec("sop/train", range(11_318), 59_551, 11_318, _PML),
                SplitSpec("sop/test", range(11_318, 22_634), 60_502, 11_316, _PML),
            ),
            "inshop": (
                SplitSpec("inshop/train", range(3_997), 25_882, 3_997, _INSHOP),
                SplitSpec("inshop/query", range(3_997, 7_982), 14_218, 3_985, _INSHOP),
                SplitSpec("inshop/gallery", range(3_997, 7_982), 12_612, 3_985, _INSHOP),
            ),
            "cifar100": (
                SplitSpec("cifar100/train", range(100), 50_000, 100, _CIFAR),
                SplitSpec("cifar100/test", range(100), 10_000, 100, _CIFAR),
            ),
            "cifar100-coarse": (
                SplitSpec("cifar100-coarse/train", range(20), 50_000, 20, _CIFAR),
                SplitSpec("cifar100-coarse/test", range(20), 10_000, 20, _CIFAR),
            ),
        }.items()
    }
)


def split_by_class(items: Items, *, train_share: float = 0.5) -> tuple[Items, Items]:
    """Divide items by class, as the zero-shot benchmarks do: the first class ids train, the others test.

    Args:
        items: items of at least two classes.
        train_share: share of the classes that train, above 0 and below 1; rounded down, with at least one class on
            either side.

    Returns:
        ``(train, test)``, which have no class in common.

    Raises:
        ValueError: the share is out of range, or there are fewer than two classes.

    Example:
        >>> import torch
        >>> train, test = split_by_class(Items(torch.eye(5), torch.tensor([4, 0, 1, 4, 9])))
        >>> train.classes, test.classes
        (tensor([0, 1]), tensor([4, 9]))
    """
    if not 0 < train_share < 1:
        raise InputError(f"train_share must lie between 0 and 1, both excluded, got {train_share}")
    classes = items.classes
    if len(classes) < 2:
        raise InputError(
            f"a split by class needs at least 2 classes, got {len(classes)}; "
            "give the data a split of its own (train and test folders, or a split column)"
        )
    # 0.3 of 10 classes are 3, though the product is a hair below 3 in floating point
    count = min(max(int(train_share * len(classes) + 1e-9), 1), len(classes) - 1)
    in_train = torch.isin(items.labels, classes[:count])
    return items.subset(in_train), items.subset(~in_train)


def hold_out_classes(train: Items, *, share: float, seed: int) -> tuple[Items, Items]:
    """Hold out classes of the training items for validation.

    Which classes are held out depends on the class ids, ``share`` and ``seed`` alone.

    Args:
        train: training items of at least four classes.
        share: share of the classes to hold out, above 0 and below 1; rounded to the nearest number, with at least two
            classes on either side: within one class every result is right, and one training class leaves nothing to
            push apart.
        seed: 0 or more.

    Returns:
        ``(train, validation)``, which have no class in common.

    Raises:
        ValueError: the share is out of range, the classes are too few, or no held-out class has two items.

    Example:
        >>> import torch
        >>> items = Items(torch.zeros(12, 1), torch.arange(6).repeat(2))
        >>> kept, held = hold_out_classes(items, share=0.3, seed=0)
        >>> len(kept.classes), len(held.classes)
        (4, 2)
    """
    if not 0 < share < 1:
        raise InputError(
            f"the share of held-out classes must lie between 0 and 1, both excluded, got {share}; "
            "leave validation out if none is wanted"
        )
    classes = train.classes
    if len(classes) < 4:
        raise InputError(
            f"holding classes out needs at least 4 training classes (2 to train, 2 to search), got {len(classes)}; a "
            "source without a split of its own gives half of its classes to the test, so bring 8 classes or more, or "
            "train without validation (data.val_share=0)"
        )
    count = min(max(round(share * len(classes)), 2), len(classes) - 2)
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))
    held = torch.isin(train.labels, classes[order[:count]])
    validation = train.subset(held)
    if int(validation.labels.unique(return_counts=True)[1].max()) < 2:
        raise InputError(
            f"none of the {count} held-out classes has two items, so there is nothing to find; "
            "hold out a larger share, or take another seed"
        )
    return train.subset(~held), validation


@dataclass(frozen=True)
class SourceItems:
    """All items of a source.

    Attributes:
        name: the source as the user named it.
        items: items of all splits.
        parts: ``(N,)`` int64, 0 train, 1 test or query, 2 gallery, 3 validation; None if the source has no split of
            its own.
        notes: what a reader of the numbers has to know.
        missing: number of listed images that are missing and left out of ``items``.
    """

    name: str
    items: Items
    parts: Tensor | None = None
    notes: tuple[str, ...] = ()
    missing: int = 0

    def noted(self, notes: tuple[str, ...]) -> SourceItems:
        """The listing with more notes."""
        return replace(self, notes=self.notes + notes) if notes else self

    def verified(self, specs: Sequence[SplitSpec], *, allow_partial: bool) -> SourceItems:
        """The listing with the notes of :meth:`SplitSpec.verify`, one spec per part."""
        assert self.parts is not None  # only sources with an official split have specs
        notes = self.notes
        for part, spec in enumerate(specs):
            notes += spec.verify(self.items.labels[self.parts == part], allow_partial=allow_partial)
        return replace(self, notes=notes)

    def split(self, *, train_share: float = 0.5) -> Split:
        """Divide by the source's own split, or by class where it has none.

        Raises:
            ValueError: the train or test split is empty, no query has a match, or ``train_share`` is set for a source
                with a split of its own.
        """
        if self.parts is None:
            with reading(self.name):
                train, test = split_by_class(self.items, train_share=train_share)
            return checked(Split(self.name, train, test, None, self.notes, self.missing))
        if train_share != 0.5:
            raise InputError(
                f"{self.name} has a split of its own, so train_share={train_share} cannot apply; leave it out"
            )
        train, test, gallery, validation = (self.items.subset(self.parts == part) for part in range(4))
        for part, items in (("train", train), ("test or query", test)):
            if not len(items):
                raise InputError(f"{self.name}: its split has no {part} item; add some, or leave the split out")
        split = Split(
            self.name,
            train,
            test,
            gallery if len(gallery) else None,
            self.notes,
            self.missing,
            validation if len(validation) else None,
        )
        return checked(_with_validation(replace(split, notes=split.notes + _closed_set(split))))


def checked(split: Split) -> Split:
    """Require test items, at least one of them with a match to find."""
    if not len(split.test):
        raise InputError(f"{split.name}: no test item is left, so there is nothing to search with; add some")
    labels, counts = split.test.labels.unique(return_counts=True)
    if split.gallery is not None and not bool(torch.isin(labels, split.gallery.labels).any()):
        raise InputError(f"{split.name}: no class of the queries is in the gallery, so nothing can be found")
    if split.gallery is None and int(counts.max()) < 2:
        if bool(torch.isin(labels, split.train.labels).any()):
            note = "its test part has one item a class, so it is searched among the training items"
            return replace(split, gallery=split.train, notes=(*split.notes, note))
        raise InputError(
            f"{split.name}: every test class has one item, so nothing can be found; "
            "retrieval needs at least two items of a class"
        )
    return split


def _closed_set(split: Split) -> tuple[str, ...]:
    classes = split.test.classes
    shared = int(torch.isin(classes, split.train.labels).sum())
    if not shared:
        return ()
    which = "test classes" if shared == len(classes) else f"{shared:,} of {len(classes):,} test classes"
    return (f"closed set: {which} were trained on",)


def _with_validation(split: Split) -> Split:
    """Note the use of the split's own validation part; drop one without matches to find."""
    items = split.validation
    if items is None:
        return split
    if int(items.labels.unique(return_counts=True)[1].max()) > 1:
        note = f"its own validation part of {len(items):,} items chooses the epoch"
        return replace(split, notes=(*split.notes, note))
    note = (
        f"its validation part of {len(items):,} items has one item a class, so nothing can be found in it: it is left "
        "out, and classes are held out of the training classes instead"
    )
    return replace(split, validation=None, notes=(*split.notes, note))

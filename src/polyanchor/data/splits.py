"""Official splits, and the counts by which a copy of a data set proves to be the one that papers used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from polyanchor._errors import InputError
from polyanchor.data.items import Items

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
    """What one part of a data set must hold.

    Attributes:
        name: data set and part, as ``cars196/train``.
        classes: 0-based class ids that may occur.
        n_images: images in the complete part.
        n_classes: classes in the complete part.
        source: where the counts come from.

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
        """Refuse a copy that is not the official one.

        Args:
            labels: ``(N,)`` int64, 0-based class ids of the copy.
            allow_partial: accept a copy with other counts. Foreign classes are refused all the same: they
                would be another split, not part of this one.

        Returns:
            Notes for the reader of the numbers; none if the copy is complete.

        Raises:
            ValueError: foreign classes, nothing at all, or other counts.
        """
        found = labels.unique()
        outside = [label for label in found.tolist() if label not in self.classes]
        if outside:
            raise InputError(
                f"{self.name}: expected class ids from {self.classes.start} to {self.classes.stop - 1}, "
                f"got {outside[:5]}; these labels belong to another split or another data set"
            )
        counts = f"{len(labels):,} of {self.n_images:,} images, {len(found):,} of {self.n_classes:,} classes"
        if len(labels) == self.n_images and len(found) == self.n_classes:
            return ()
        if allow_partial and len(labels):
            return (
                f"{self.name} is not the complete data set ({counts}): numbers are not comparable with published ones",
            )
        raise InputError(
            f"{self.name}: expected {self.n_images:,} images of {self.n_classes:,} classes ({self.source}), "
            "found "
            f"{len(labels):,} images of {len(found):,} classes. Numbers from another copy cannot be "
            "compared with "
            "published ones; complete it, or use it as it is with --allow-partial (allow_partial=True)"
        )


# Data set -> part -> what it must hold.
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
        train_share: share of the classes that train, above 0 and below 1; rounded down, but at least one
            class stands on either side.

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
    # the small addition keeps 0.3 of 10 classes at 3: the product is a hair below it in floating point
    count = min(max(int(train_share * len(classes) + 1e-9), 1), len(classes) - 1)
    trains = torch.isin(items.labels, classes[:count])
    return items.subset(trains), items.subset(~trains)

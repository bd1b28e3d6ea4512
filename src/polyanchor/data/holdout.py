"""Validation: classes held out of the training classes, so that test classes never select anything."""

from __future__ import annotations

import torch

from polyanchor._errors import InputError
from polyanchor.data.items import Items


def hold_out_classes(train: Items, *, share: float, seed: int) -> tuple[Items, Items]:
    """Divide the training items into those that still train and those of held-out classes.

    Which classes are held out follows from the class ids, ``share`` and ``seed`` alone.

    Args:
        train: training items of at least four classes.
        share: share of the classes to hold out, above 0 and below 1; rounded to the nearest number, but at
            least two classes stand on either side: among one class every answer is right, and with one class
            to train on nothing is pushed apart.
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

"""What a data source reads before it is split: all of its items, and the part each belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from polyanchor._errors import InputError
from polyanchor.data.items import Items, Split
from polyanchor.data.reading import reading
from polyanchor.data.splits import SplitSpec, split_by_class


@dataclass(frozen=True)
class Listing:
    """All items of a source.

    Attributes:
        name: the source as the user named it.
        items: all items, whatever their part.
        parts: ``(N,)`` int64, 0 train, 1 test or query, 2 gallery, 3 validation; None if the source has no split of
            its own.
        notes: what a reader of the numbers has to know.
        missing: listed images that were not there and are left out of ``items``.
    """

    name: str
    items: Items
    parts: Tensor | None = None
    notes: tuple[str, ...] = ()
    missing: int = 0

    def noted(self, notes: tuple[str, ...]) -> Listing:
        """The same listing with more notes."""
        return replace(self, notes=self.notes + notes) if notes else self

    def verified(self, specs: Sequence[SplitSpec], *, allow_partial: bool) -> Listing:
        """The same listing with the notes of :meth:`SplitSpec.verify`, one spec per part."""
        assert self.parts is not None  # only sources with an official split have specs
        notes = self.notes
        for part, spec in enumerate(specs):
            notes += spec.verify(self.items.labels[self.parts == part], allow_partial=allow_partial)
        return replace(self, notes=notes)

    def split(self, *, train_share: float = 0.5) -> Split:
        """Divide by the source's own split, or by class where it has none.

        Raises:
            ValueError: a part is empty, nothing in the test part can be found, or ``train_share`` is asked of
                a source that has a split of its own.
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
    """Require test items, and that at least one of them has something to find."""
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
    """Say what the split's own validation part does; one in which nothing can be found does nothing."""
    held = split.validation
    if held is None:
        return split
    if int(held.labels.unique(return_counts=True)[1].max()) > 1:
        note = f"its own validation part of {len(held):,} items chooses the epoch"
        return replace(split, notes=(*split.notes, note))
    note = (
        f"its validation part of {len(held):,} items has one item a class, so nothing can be found in it: it is left "
        "out, and classes are held out of the training classes instead"
    )
    return replace(split, validation=None, notes=(*split.notes, note))

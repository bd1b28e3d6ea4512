"""Labelled items and the parts of a data set: what every data source gives."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor.datasets.images import ImageArrays, ImageBytes, ImageFiles, ImageRows, Images


@dataclass(frozen=True)
class Items:
    """Inputs with class labels.

    Attributes:
        inputs: images, read one at a time, or ``(N, D)`` floating vectors computed beforehand.
        labels: ``(N,)`` int64, the source's own class ids, 0 or more; not always without gaps.
        class_names: class id -> name, for those classes that have one; may name classes that have no item
            here.
        names: one name per row where ``inputs`` are vectors; empty if they have none. Images know their own.
        sublabels: ``(N,)`` int64, known finer classes within the classes, where a source has them. Nothing trains on
            them: they tell whether local centres were found.

    Raises:
        TypeError: labels or vectors have another dtype.
        ValueError: a shape is another, or a class id is below 0.

    Example:
        >>> import torch
        >>> items = Items(torch.eye(4), torch.tensor([3, 0, 3, 7]))
        >>> items.classes
        tensor([0, 3, 7])
        >>> items.select_classes([3]).labels
        tensor([3, 3])
    """

    inputs: Images | Tensor
    labels: Tensor
    class_names: Mapping[int, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    sublabels: Tensor | None = None

    def __post_init__(self) -> None:
        if isinstance(self.inputs, Tensor):
            # no rows are no fault here: a part may be empty, and whoever needs items says so with the part's name
            empty = self.inputs.shape[:1] == (0,)
            inputs = self.inputs.new_zeros(1, *self.inputs.shape[1:]) if empty else self.inputs
            _check.vectors("inputs", inputs, rows="N")
        object.__setattr__(self, "labels", _check.integer_labels("labels", self.labels, len(self.inputs)))
        if len(self.labels) and int(self.labels.min()) < 0:
            raise InputError(
                f"labels must be class ids of 0 or more, got {int(self.labels.min())}; "
                "leave out the items without a class, or number the classes anew"
            )
        if self.names and len(self.names) != len(self.labels):
            raise InputError(f"names must be empty or one per row, got {len(self.names)} for {len(self.labels)} rows")
        if self.sublabels is not None:
            sublabels = _check.integer_labels("sublabels", self.sublabels, len(self.labels))
            object.__setattr__(self, "sublabels", sublabels)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_vectors(self) -> bool:
        """Whether the inputs are vectors computed beforehand."""
        return isinstance(self.inputs, Tensor)

    @property
    def classes(self) -> Tensor:
        """``(C,)`` int64, the class ids that occur, ascending."""
        found: Tensor = self.labels.unique()
        return found

    def name(self, row: int) -> str:
        """The row's name: a path, a row of a table, or its number where there is no better."""
        if not isinstance(self.inputs, Tensor):
            return self.inputs.name(row)
        return self.names[row] if self.names else str(row)

    def subset(self, rows: Tensor) -> Items:
        """The rows asked for, in that order; no image is read or copied, nor are vectors that follow one another.

        Args:
            rows: ``(M,)`` int64 row numbers, or ``(N,)`` bool.
        """
        rows = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows
        inputs = _rows_of(self.inputs, rows) if isinstance(self.inputs, Tensor) else ImageRows(self.inputs, rows)
        names = tuple(self.names[row] for row in rows.tolist()) if self.names else ()
        sublabels = None if self.sublabels is None else self.sublabels[rows]
        return replace(self, inputs=inputs, labels=self.labels[rows], names=names, sublabels=sublabels)

    def without(self, names: Iterable[str]) -> Items:
        """The items that are not named: those whose images could be read, for example."""
        left_out = set(names)
        if not left_out:
            return self
        return self.subset(torch.tensor([row for row in range(len(self)) if self.name(row) not in left_out]))

    def select_classes(self, ids: Tensor | Iterable[int]) -> Items:
        """The items of some classes, in their order here.

        Raises:
            ValueError: no item is of one of the classes.
        """
        wanted = ids if isinstance(ids, Tensor) else torch.tensor(list(ids), dtype=torch.int64)
        absent = wanted[~torch.isin(wanted, self.labels)]
        if len(absent):
            raise InputError(f"class ids {absent[:5].tolist()} have no items here; see Items.classes for those that do")
        return self.subset(torch.isin(self.labels, wanted))


def _rows_of(vectors: Tensor, rows: Tensor) -> Tensor:
    """A view where the rows follow one another, as those of a part mostly do: a second copy may not fit in memory."""
    if len(rows) and bool((rows.diff() == 1).all()) and int(rows[0]) >= 0 and int(rows[-1]) < len(vectors):
        return vectors[int(rows[0]) : int(rows[-1]) + 1]
    return vectors[rows]


@dataclass(frozen=True)
class Split:
    """A data set divided into training and test items.

    Attributes:
        name: the data source as the user named it.
        train: items to train on.
        test: items to search with; they are searched among themselves if there is no gallery.
        gallery: items that ``test`` is searched in, where the data set sets some apart.
        notes: what a reader of the numbers has to know, for example that the copy was not complete.
        missing: listed images that were not there and are left out (``allow_partial``).
        validation: items to choose the best epoch with, where the data set sets some apart.
    """

    name: str
    train: Items
    test: Items
    gallery: Items | None = None
    notes: tuple[str, ...] = ()
    missing: int = 0
    validation: Items | None = None


def content_digest(items: Items) -> str:
    """Hexadecimal digest of what the items hold, in order.

    Of vectors and pixels in memory it is a digest of every value. Of encoded images it is one of their sizes in bytes,
    which another image hardly ever shares: a file is looked at and not read, which costs no more than opening each of
    them once, as every epoch does. A file that changed and kept its size is not noticed.

    Example:
        >>> labels = torch.tensor([0, 1])
        >>> contents(Items(torch.eye(2), labels)) == contents(Items(2 * torch.eye(2), labels))
        False
    """
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(items.inputs, Tensor):
        digest.update(items.inputs.contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()
    for row in range(len(items)):
        stamp = _stamp(items.inputs, row)
        digest.update(b"%d %d " % (row, len(stamp)) + stamp)
    return digest.hexdigest()


def _stamp(images: Images, row: int) -> bytes:
    """Tells an image from another in its place; empty where there is none, or no way to tell without decoding it."""
    if isinstance(images, ImageRows):
        return _stamp(images.images, int(images.rows[row]))
    if isinstance(images, ImageFiles):
        try:
            return b"%d" % (images.root / images.paths[row]).stat().st_size
        except OSError:
            return b""
    if isinstance(images, ImageArrays):
        pixels: bytes = images.pixels[row].tobytes()
        return pixels
    if isinstance(images, ImageBytes):
        cell = images.cells[row]
        held = cell.as_buffer() if hasattr(cell, "as_buffer") else cell  # of Arrow's, without a copy
        return b"" if held is None else b"%d" % len(memoryview(held))
    return b""

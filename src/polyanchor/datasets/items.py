"""Labelled items and splits: what every data source returns."""

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
        labels: ``(N,)`` int64, the source's own class ids, 0 or more, possibly with gaps.
        class_names: class id -> name, for classes that have one; may name classes without items.
        names: one per row of vectors, or empty; images have names of their own.
        sublabels: ``(N,)`` int64, finer classes within the classes, where a source has them. They are not trained on:
            they tell whether local centres were found.

    Raises:
        TypeError: wrong dtype of labels or vectors.
        ValueError: wrong shape, or a class id below 0.

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
            # a split may be empty; the error about that is raised where its name is known
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
        classes: Tensor = self.labels.unique()
        return classes

    def name(self, row: int) -> str:
        """Name of a row: a path, a row of a table, or else its number."""
        if not isinstance(self.inputs, Tensor):
            return self.inputs.name(row)
        return self.names[row] if self.names else str(row)

    def subset(self, rows: Tensor) -> Items:
        """A selection of rows, in that order; no image is read, and contiguous vectors are not copied.

        Args:
            rows: ``(M,)`` int64 row numbers, or ``(N,)`` bool.
        """
        rows = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows
        inputs = _rows_of(self.inputs, rows) if isinstance(self.inputs, Tensor) else ImageRows(self.inputs, rows)
        names = tuple(self.names[row] for row in rows.tolist()) if self.names else ()
        sublabels = None if self.sublabels is None else self.sublabels[rows]
        return replace(self, inputs=inputs, labels=self.labels[rows], names=names, sublabels=sublabels)

    def without(self, names: Iterable[str]) -> Items:
        """All items but those with these names, for example the images that could not be read."""
        excluded = set(names)
        if not excluded:
            return self
        return self.subset(torch.tensor([row for row in range(len(self)) if self.name(row) not in excluded]))

    def select_classes(self, ids: Tensor | Iterable[int]) -> Items:
        """The items of these classes, in their present order.

        Raises:
            ValueError: a class has no items.
        """
        classes = ids if isinstance(ids, Tensor) else torch.tensor(list(ids), dtype=torch.int64)
        absent = classes[~torch.isin(classes, self.labels)]
        if len(absent):
            raise InputError(f"class ids {absent[:5].tolist()} have no items here; see Items.classes for those that do")
        return self.subset(torch.isin(self.labels, classes))


def _rows_of(vectors: Tensor, rows: Tensor) -> Tensor:
    """A view where the rows are contiguous, as those of a split mostly are: a second copy may not fit in memory."""
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
        gallery: items that ``test`` is searched in, where the data set has a gallery.
        notes: what a reader of the numbers has to know, for example that the copy was not complete.
        missing: number of listed images that are missing and left out (``allow_partial``).
        validation: items to choose the best epoch with, where the data set has a validation split.
    """

    name: str
    train: Items
    test: Items
    gallery: Items | None = None
    notes: tuple[str, ...] = ()
    missing: int = 0
    validation: Items | None = None


def content_digest(items: Items) -> str:
    """Hexadecimal digest of the items' contents, in order.

    Vectors and pixels in memory enter with every value, encoded images with their size in bytes, which another image
    hardly ever shares and which is known without reading the file. A file that changed and kept its size is not
    noticed.

    Example:
        >>> labels = torch.tensor([0, 1])
        >>> content_digest(Items(torch.eye(2), labels)) == content_digest(Items(2 * torch.eye(2), labels))
        False
    """
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(items.inputs, Tensor):
        digest.update(items.inputs.contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()
    for row in range(len(items)):
        content = _content(items.inputs, row)
        digest.update(b"%d %d " % (row, len(content)) + content)
    return digest.hexdigest()


def _content(images: Images, row: int) -> bytes:
    """Pixels or encoded size of an image; empty if it is missing or has neither without being decoded."""
    if isinstance(images, ImageRows):
        return _content(images.images, int(images.rows[row]))
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
        encoded = cell.as_buffer() if hasattr(cell, "as_buffer") else cell  # of Arrow's, without a copy
        return b"" if encoded is None else b"%d" % len(memoryview(encoded))
    return b""

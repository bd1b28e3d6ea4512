"""Items as tensors: the dataset, its batches, and images in mixed forms."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import Dataset

from polyanchor import _check
from polyanchor._errors import InputError, InputTypeError
from polyanchor._io import user_path
from polyanchor._optional import load
from polyanchor.datasets.images import BadImageError, ImageFiles, Images, Look, decoded, upright_rgb
from polyanchor.datasets.items import Items
from polyanchor.datasets.samplers import Row
from polyanchor.datasets.transforms import ImageTransform

if TYPE_CHECKING:
    from numpy import ndarray
    from PIL.Image import Image


Sample: TypeAlias = tuple[Tensor, int, int]
Given: TypeAlias = "str | os.PathLike[str] | bytes | Image | ndarray[Any, Any]"
# A PIL image is decoded on its first use. Two threads may not decode the same one, nor two that read from one stream,
# as members of an archive do.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Skipped:
    """Placeholder for an image that cannot be read, until :func:`collate` removes it."""

    name: str


class Batch(NamedTuple):
    """Samples put together.

    Attributes:
        inputs: ``(B, ...)`` floating; ``(0,)`` if every image of the batch was skipped.
        labels: ``(B,)`` int64, the source's own class ids.
        rows: ``(B,)`` int64, row numbers in the items.
        skipped: names of the images that were left out.
    """

    inputs: Tensor
    labels: Tensor
    rows: Tensor
    skipped: tuple[str, ...]


class ItemDataset(Dataset["Sample | Skipped"]):
    """Items with a transform, as a ``torch.utils.data.Dataset``.

    The random choices of an item depend on ``seed``, the epoch and the row alone, so that an item looks the same in any
    worker, thread or process, and after resuming. A transform of your own may draw from torch's CPU generator, which is
    seeded for each item and restored afterwards; draws from ``random`` or ``numpy.random`` are not reproduced.

    A data loader asks for whole batches (``__getitems__``) and needs ``collate_fn=collate``. Images with a transform
    of :mod:`polyanchor.datasets.transforms` are then decoded by ``torch.get_num_threads()`` threads: all of torch's
    threads in the main process, one in a worker.

    Args:
        items: images or vectors.
        transform: image -> ``(3, H, W)`` tensor, or vector -> vector; None leaves vectors unchanged. Transforms
            other than those of :mod:`polyanchor.datasets.transforms` are called item by item.
        seed: 0 or more.
        on_bad: ``"stop"`` raises :class:`BadImageError` at an image that cannot be read; ``"skip"`` returns
            :class:`Skipped` for it.

    Raises:
        ValueError: images without a transform, or another ``on_bad``.

    Example:
        >>> items = Items(torch.eye(3), torch.tensor([7, 7, 9]))
        >>> data = ItemDataset(items, None)
        >>> collate([data[0], data[2]]).labels
        tensor([7, 9])
    """

    def __init__(
        self,
        items: Items,
        transform: Callable[[Any], Tensor] | None,
        *,
        seed: int = 0,
        on_bad: Literal["stop", "skip"] = "stop",
    ) -> None:
        _check.one_of("on_bad", on_bad, ("stop", "skip"))
        if transform is None and not items.is_vectors:
            raise InputError("transform may be None for vectors only; images need one (polyanchor.datasets.transforms)")
        self.items, self.transform, self.seed, self.on_bad = items, transform, seed, on_bad
        self._labels: list[int] = items.labels.tolist()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Sample | Skipped:
        """Sample of a row, in epoch 0 or in the epoch of a :class:`~polyanchor.datasets.samplers.Row`."""
        inputs, transform = self.items.inputs, self.transform
        if isinstance(inputs, Tensor):
            return self._transformed(inputs[row], row), self._labels[row], int(row)
        try:
            if isinstance(transform, ImageTransform):
                batch = self._batch(inputs, transform, [row])
                return Skipped(batch.skipped[0]) if batch.skipped else (batch.inputs[0], self._labels[row], int(row))
            return self._transformed(inputs.read(row), row), self._labels[row], int(row)
        except BadImageError as error:
            if self.on_bad == "stop":
                raise
            return Skipped(error.name)

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        """Batch of rows; images are channels-last in memory."""
        if isinstance(self.items.inputs, Tensor) or not isinstance(self.transform, ImageTransform):
            return collate([self[row] for row in rows])
        return self._batch(self.items.inputs, self.transform, rows)

    def _batch(self, images: Images, transform: ImageTransform, rows: Sequence[int]) -> Batch:
        seeds = [_mixed(self.seed, _epoch(row), row) for row in rows]
        inputs, errors = decoded(images, transform, rows, seeds, threads=torch.get_num_threads())
        bad = [error for error in errors if error is not None]
        if bad and self.on_bad == "stop":
            raise bad[0]
        read = [row for row, error in zip(rows, errors, strict=True) if error is None]
        labels = torch.tensor([self._labels[row] for row in read], dtype=torch.int64)
        inputs = inputs if read else torch.empty(0)
        return Batch(inputs, labels, torch.tensor(read, dtype=torch.int64), tuple(error.name for error in bad))

    def _transformed(self, inputs: Any, row: int) -> Tensor:
        if self.transform is None:
            return torch.as_tensor(inputs)
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also seed the generators of the accelerators, and so change dropout
            torch.default_generator.manual_seed(_mixed(self.seed, _epoch(row), row))
            return self.transform(inputs)


def ignore_sigint(worker: int) -> None:
    """For ``DataLoader(worker_init_fn=...)``: a signal goes to the whole process group; the main process handles it."""
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    # the first SIGTERM is the group's; the main process sends a second one to workers that do not end
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def ignore_sigint_and_nice(worker: int) -> None:
    """:func:`ignore_sigint` and a low priority, for training on the CPU.

    A step divides its work evenly among the cores, and a core that also decodes makes the others wait. The worker still
    gets about a tenth of a busy core.
    """
    ignore_sigint(worker)
    if hasattr(os, "nice"):  # not on Windows
        os.nice(10)


def collate(samples: Sequence[Sample | Skipped] | Batch) -> Batch:
    """Stack samples into a batch, without the skipped ones.

    Args:
        samples: of :class:`ItemDataset`; a batch is returned unchanged.

    Raises:
        ValueError: the inputs differ in shape.
    """
    if isinstance(samples, Batch):
        return samples
    skipped = tuple(sample.name for sample in samples if isinstance(sample, Skipped))
    read = [sample for sample in samples if not isinstance(sample, Skipped)]
    shapes = {tuple(sample[0].shape) for sample in read}
    if len(shapes) > 1:
        raise InputError(
            f"the inputs of a batch must have one shape, got {', '.join(map(str, sorted(shapes)))}; "
            "let the transform crop or resize to a fixed size"
        )
    inputs = torch.stack([sample[0] for sample in read]) if read else torch.empty(0)
    labels = torch.tensor([sample[1] for sample in read], dtype=torch.int64)
    return Batch(inputs, labels, torch.tensor([sample[2] for sample in read], dtype=torch.int64), skipped)


def listing_digest(items: Items) -> str:
    """Hexadecimal digest of names and labels, in order: equal for two runs on the same list of items.

    Inputs are not read. Names are relative to the data set, so a copy elsewhere has the same digest.

    Example:
        >>> vectors = torch.eye(2)
        >>> listing_digest(Items(vectors, torch.tensor([0, 1]))) == listing_digest(Items(vectors, torch.tensor([1, 0])))
        False
    """
    digest = hashlib.blake2b(digest_size=16)
    for row, label in enumerate(items.labels.tolist()):
        name = items.name(row).encode("utf-8", "surrogateescape")
        digest.update(b"%d %d " % (label, len(name)) + name)  # the length keeps neighbours from running together
    return digest.hexdigest()


def _epoch(row: int) -> int:
    return row.epoch if isinstance(row, Row) else 0


def _mixed(seed: int, epoch: int, row: int) -> int:
    """A 63-bit number that neighbouring seeds, epochs and rows do not share."""
    digest = hashlib.blake2b(f"{seed} {epoch} {row}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def collected(inputs: Iterable[Given] | Given | Tensor) -> list[Given] | Tensor:
    """A list of images, or vectors, from every unambiguous form of input.

    Args:
        inputs: a tensor, which is returned unchanged; a NumPy array: ``(N, D)`` floating vectors, one ``(H, W)`` or
            ``(H, W, C)`` uint8 image or ``(N, H, W, C)`` of them, C being 1, 3 or 4; one image; or any iterable of
            images, which is read to its end.

    Raises:
        TypeError: something else, or an array of another dtype.
        ValueError: an array of another shape.

    Example:
        >>> import numpy
        >>> len(collected("photos/a.jpg")), len(collected(numpy.zeros((5, 8, 8, 3), "uint8")))
        (1, 5)
    """
    if isinstance(inputs, Tensor):
        return inputs
    if isinstance(inputs, load("numpy", "train").ndarray):
        return _of_array(inputs)
    if isinstance(inputs, _kinds()):
        return [inputs]  # type: ignore[list-item]  # _kinds() is known at run time alone
    if not isinstance(inputs, Iterable):
        raise InputTypeError(f"inputs must be images (paths, PIL images, bytes, arrays), got {type(inputs).__name__}")
    return list(inputs)  # MixedImages checks each


def _of_array(array: ndarray[Any, Any]) -> list[Given] | Tensor:
    shape = tuple(array.shape)
    if array.dtype.kind == "f":
        if array.ndim != 2:
            raise InputError(f"a floating array must be (N, D) vectors, got {shape}; images as arrays are uint8")
        return torch.tensor(array.astype(array.dtype.newbyteorder("="), copy=False))
    if array.dtype != "uint8":
        raise InputTypeError(f"an array must be floating vectors or uint8 images, got {array.dtype}")
    coloured = shape[-1:] in ((1,), (3,), (4,))
    if array.ndim == 4 and coloured:
        return list(array)
    if array.ndim == 2 or (array.ndim == 3 and coloured):
        return [array]
    raise InputError(f"uint8 images must be (H, W), (H, W, C) or (N, H, W, C) with C 1, 3 or 4, got {shape}")


def _kinds() -> tuple[type, ...]:
    return str, os.PathLike, bytes, load("PIL.Image", "train").Image, load("numpy", "train").ndarray


class MixedImages:
    """Images in any mixture of forms.

    Args:
        given: one per image: a path, a PIL image, which is not changed, the bytes of an image file, or an ``(H, W)``
            or ``(H, W, C)`` uint8 array.

    Raises:
        TypeError: an entry is something else.
        ValueError: an array that is no image.

    Example:
        >>> from PIL import Image
        >>> images = MixedImages(["photos/a.jpg", Image.new("L", (4, 3))])
        >>> images.name(0), images.name(1), images.read(1).mode
        ('photos/a.jpg', 'image 1', 'RGB')
    """

    def __init__(self, given: Sequence[Given]) -> None:
        kinds, array = _kinds(), load("numpy", "train").ndarray
        for row, entry in enumerate(given):
            if not isinstance(entry, kinds):
                raise InputTypeError(
                    "images must be paths, PIL images, bytes of image files or uint8 arrays, got "
                    f"{type(entry).__name__} at place {row}"
                )
            if isinstance(entry, array) and (entry.dtype != "uint8" or entry.ndim > 3 or len(collected(entry)) != 1):
                raise InputError(f"an array in a list must be one image, got {entry.dtype} {entry.shape} at {row}")
        self.given = given

    def __len__(self) -> int:
        return len(self.given)

    def name(self, row: int) -> str:
        """The path; for a PIL image the file that it was opened from, or else its position."""
        entry = self.given[row]
        if isinstance(entry, (str, os.PathLike)):
            return os.fspath(entry)
        return str(getattr(entry, "filename", "")) or f"image {row}"

    def read(self, row: int, look: Look | None = None) -> Image:
        entry: Any = self.given[row]
        if isinstance(entry, (str, os.PathLike)):
            return ImageFiles(Path(), [os.fspath(user_path(entry))]).read(0, look)
        image = load("PIL.Image", "train")
        try:
            if isinstance(entry, bytes):
                entry = image.open(io.BytesIO(entry))
            elif not isinstance(entry, image.Image):
                entry = image.fromarray(entry[..., 0] if entry.shape[2:] == (1,) else entry)
            with _ONE_AT_A_TIME:
                entry.load()
                upright = upright_rgb(entry)
                upright = upright.copy() if upright is entry else upright
        except MemoryError:
            raise
        except Exception as error:  # opened lazily, it is decoded here: see images.py
            raise BadImageError.of(self.name(row), str(error) or type(error).__name__) from error
        if look is not None:
            look(upright.width, upright.height)
        return upright

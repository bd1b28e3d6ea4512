"""Items as tensors: the dataset, and how its samples become a batch."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import Dataset

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor.data.decoding import decoded
from polyanchor.data.images import BadImageError, Images
from polyanchor.data.items import Items
from polyanchor.data.sampling import Row
from polyanchor.data.transforms import ImageTransform

Sample: TypeAlias = tuple[Tensor, int, int]


@dataclass(frozen=True)
class Skipped:
    """What stands in a batch for an image that cannot be read, until :func:`collate` takes it out."""

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
    """Items with a transform, as ``torch.utils.data.DataLoader`` wants them.

    The random choices of an item follow from ``seed``, the epoch and the row. So an item looks the same whatever
    worker, thread or process reads it, after resuming as without. A transform of your own may draw from torch's CPU
    generator, which is set for each item and put back afterwards; one that draws from ``random`` or
    ``numpy.random`` is outside of this.

    A data loader asks for whole batches (``__getitems__``) and needs ``collate_fn=collate``. Images with a transform
    of :mod:`polyanchor.data.transforms` are then decoded by ``torch.get_num_threads()`` threads: all that torch
    computes with in the main process, one in a worker.

    Args:
        items: what to read.
        transform: image -> ``(3, H, W)`` tensor, or vector -> vector; None leaves vectors as they are. Transforms
            other than those of :mod:`polyanchor.data.transforms` are called item by item.
        seed: 0 or more.
        on_bad: ``"stop"`` raises :class:`BadImageError` at an image that cannot be read; ``"skip"`` gives
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
            raise InputError("transform may be None for vectors only; images need one (polyanchor.data.transforms)")
        self.items, self.transform, self.seed, self.on_bad = items, transform, seed, on_bad
        self._labels: list[int] = items.labels.tolist()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Sample | Skipped:
        """Sample of a row: of epoch 0, or of that of a :class:`~polyanchor.data.sampling.Row`."""
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
        """The batch of some rows; images of it are channels-last in memory."""
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
            # torch.manual_seed would set the generators of the accelerators too, and with them dropout
            torch.default_generator.manual_seed(_mixed(self.seed, _epoch(row), row))
            return self.transform(inputs)


def deaf(worker: int) -> None:
    """For ``DataLoader(worker_init_fn=...)``: a request to stop goes to the whole group; the main process answers."""
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    # the main process ends workers that do not end by themselves with SIGTERM, so a later one counts
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def yielding(worker: int) -> None:
    """Like :func:`deaf`, for a training on the CPU: the worker takes the time that the training leaves over.

    A step divides its work evenly among the cores; one that also decodes makes the others wait. The worker still gets
    about a tenth of a busy core.
    """
    deaf(worker)
    if hasattr(os, "nice"):  # not on Windows
        os.nice(10)


def collate(samples: Sequence[Sample | Skipped] | Batch) -> Batch:
    """Put samples together and take the skipped ones out.

    Args:
        samples: what :class:`ItemDataset` gave; a batch stays as it is.

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


def fingerprint(items: Items) -> str:
    """Hexadecimal digest of names and labels, in order: tells whether two runs saw the same list of items.

    Inputs are not read. Names are relative to the data set, so a copy elsewhere has the same fingerprint.

    Example:
        >>> fingerprint(Items(torch.eye(2), torch.tensor([0, 1]))) == fingerprint(
        ...     Items(torch.eye(2), torch.tensor([1, 0]))
        ... )
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

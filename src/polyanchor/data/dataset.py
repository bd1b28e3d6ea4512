"""Items as tensors: the dataset, and how its samples become a batch."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import Dataset

from polyanchor import _check
from polyanchor.data.images import BadImageError
from polyanchor.data.items import Items

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

    A random transform draws from torch's CPU generator, which is set for each item from ``seed``, the epoch
    and the row, and put back afterwards. So an item looks the same whatever worker or process reads it, after
    resuming as without. A transform that draws from ``random`` or ``numpy.random`` is outside of this.

    Args:
        items: what to read.
        transform: image -> ``(3, H, W)`` tensor, or vector -> vector; None leaves vectors as they are.
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
            raise ValueError("transform may be None for vectors only; images need one (polyanchor.data.transforms)")
        self.items, self.transform, self.seed, self.on_bad = items, transform, seed, on_bad
        self._labels: list[int] = items.labels.tolist()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample | Skipped:
        """Sample of a row, or of an ``(epoch, row)`` pair as :mod:`polyanchor.data.sampling` gives it."""
        epoch, row = key if isinstance(key, tuple) else (0, key)
        inputs: Any
        if isinstance(self.items.inputs, Tensor):
            inputs = self.items.inputs[row]
        else:
            try:
                inputs = self.items.inputs.read(row)
            except BadImageError as error:
                if self.on_bad == "stop":
                    raise
                return Skipped(error.name)
        return self._transformed(inputs, epoch, row), self._labels[row], row

    def _transformed(self, inputs: Any, epoch: int, row: int) -> Tensor:
        if self.transform is None:
            return torch.as_tensor(inputs)
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would set the generators of the accelerators too, and with them dropout
            torch.default_generator.manual_seed(_mixed(self.seed, epoch, row))
            return self.transform(inputs)


def deaf(worker: int) -> None:
    """For ``DataLoader(worker_init_fn=...)``: Ctrl-C is the main process's to answer; it goes to the whole group."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def collate(samples: Sequence[Sample | Skipped]) -> Batch:
    """Put samples together and take the skipped ones out.

    Args:
        samples: what :class:`ItemDataset` gave.

    Raises:
        ValueError: the inputs differ in shape.
    """
    skipped = tuple(sample.name for sample in samples if isinstance(sample, Skipped))
    read = [sample for sample in samples if not isinstance(sample, Skipped)]
    shapes = {tuple(sample[0].shape) for sample in read}
    if len(shapes) > 1:
        raise ValueError(
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


def _mixed(seed: int, epoch: int, row: int) -> int:
    """A 63-bit number that neighbouring seeds, epochs and rows do not share."""
    digest = hashlib.blake2b(f"{seed} {epoch} {row}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1

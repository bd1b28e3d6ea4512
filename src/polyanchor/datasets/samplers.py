"""Batch samplers: batches depend on (seed, epoch) alone, not on the number of processes or workers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from torch import Tensor
from torch.utils.data import Sampler

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._optional import load

if TYPE_CHECKING:
    import numpy as np


class Row(int):
    """A row number that carries the epoch it is drawn in; otherwise an int.

    A data loader sends it to its worker processes, so that a dataset can augment by epoch there.

    Args:
        row: row number.
        epoch: 0 or more.

    Example:
        >>> row = Row(2, epoch=7)
        >>> ["a", "b", "c"][row], row.epoch, row == 2
        ('c', 7, True)
    """

    epoch: int

    def __new__(cls, row: int, epoch: int = 0) -> Row:
        number = super().__new__(cls, row)
        number.epoch = epoch
        return number

    def __reduce__(self) -> tuple[type[Row], tuple[int, int]]:
        return Row, (int(self), self.epoch)


class EpochBatches(Sampler[list[Row]]):
    """Base class of batch samplers: sub-classes define the rows of an epoch's batches.

    A ``batch_sampler`` of ``torch.utils.data.DataLoader``, which yields lists of :class:`Row`. Each iteration is a new
    epoch, which begins when its first batch is asked for, unless :meth:`set_epoch` or :meth:`load_state_dict` sets it.
    Lightning calls :meth:`set_epoch` itself.

    Args:
        size: rows in a batch, over all processes together.
        seed: 0 or more.
        rank: number of this process.
        ranks: number of processes. Their shares of a batch, concatenated in the order of their ranks, are the batch
            of a single process. Shares differ by at most one row; of a batch smaller than ``ranks``, some are empty.

    Attributes:
        epoch: of the latest iteration, or the one that was set since.
        position: batch at which it began, or is to begin: 0 unless :meth:`load_state_dict` set another. A data
            loader asks for batches before they are trained on, so the training loop counts the batches itself and
            restores its count with that method.
    """

    def __init__(self, *, size: int, seed: int, rank: int, ranks: int) -> None:
        size, seed, rank, ranks = (
            _check.integer(name, value)
            for name, value in (("size", size), ("seed", seed), ("rank", rank), ("ranks", ranks))
        )
        if seed < 0:
            raise InputError(f"seed must be 0 or more, got {seed}")
        if not 0 <= rank < ranks:
            raise InputError(f"rank must lie in [0, ranks), got rank {rank} of {ranks}")
        self.size, self.seed, self.rank, self.ranks = size, seed, rank, ranks
        self.epoch = self.position = 0
        self._begun = False  # the epoch of these two

    def __len__(self) -> int:
        """Batches in a full epoch, wherever an iteration begins."""
        raise NotImplementedError

    def rows(self, generator: np.random.Generator) -> Iterator[list[int]]:
        """The rows of each batch of one epoch."""
        raise NotImplementedError

    @property
    def sampler(self) -> EpochBatches:
        """Itself: where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration; it begins at the first batch, unless the epoch is the present one."""
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0
        self._begun = False

    def state_dict(self) -> dict[str, int]:
        """Where the next iteration begins, for :meth:`load_state_dict`."""
        if self._begun:
            return {"epoch": self.epoch + 1, "position": 0}
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Set where the next iteration begins; one that is under way is not affected."""
        self.epoch, self.position, self._begun = int(state["epoch"]), int(state["position"]), False

    def __iter__(self) -> Iterator[list[Row]]:
        if self._begun:
            self.epoch, self.position = self.epoch + 1, 0
        self._begun = True
        epoch, position = self.epoch, self.position
        for number, rows in enumerate(self._batches(epoch)):
            if number >= position:
                begin, end = (len(rows) * rank // self.ranks for rank in (self.rank, self.rank + 1))
                yield [Row(row, epoch) for row in rows[begin:end]]

    def whole(self, epoch: int, position: int) -> list[int]:
        """The rows of one batch over all processes."""
        return next(islice(self._batches(epoch), position, None))

    def _batches(self, epoch: int) -> Iterator[list[int]]:
        return self.rows(load("numpy", "train").random.default_rng((self.seed, epoch)))


class ClassBalancedBatches(EpochBatches):
    """Batches of ``classes`` different classes with ``images`` items each.

    Classes are drawn in shuffled rounds: each once before any is drawn again. So are the items of a class; a class of
    fewer than ``images`` items repeats them as little as possible. An epoch has as many batches as fit into the number
    of items, at least one.

    Args:
        labels: ``(N,)`` integer, class of each row.
        classes: different classes in a batch, over all processes together.
        images: items of each.
        seed: 0 or more.
        rank: number of this process.
        ranks: number of processes.

    Raises:
        ValueError: fewer than ``classes`` classes, or a number below 1.

    Example:
        >>> import torch
        >>> labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
        >>> batches = ClassBalancedBatches(labels, classes=2, images=2, seed=0)
        >>> len(batches)
        2
        >>> [labels[batch].unique(return_counts=True)[1].tolist() for batch in batches]
        [[2, 2], [2, 2]]
    """

    def __init__(self, labels: Tensor, *, classes: int, images: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        labels = _check.integer_labels("labels", labels, len(labels)).cpu()
        classes, images = _check.integer("classes", classes), _check.integer("images", images)
        if classes < 1 or images < 1:
            raise InputError(f"classes and images must be 1 or more, got {classes} and {images}")
        super().__init__(size=classes * images, seed=seed, rank=rank, ranks=ranks)
        counts = labels.unique(return_counts=True)[1]  # (C,)
        if classes > len(counts):
            raise InputError(
                f"a batch cannot hold {classes} different classes: there are {len(counts)}; "
                f"classes={len(counts)} is the most"
            )
        self.classes, self.images = classes, images
        self._items = len(labels)
        # the sort is stable, so a class's rows stand in ascending order on every machine
        self._members = [part.numpy() for part in labels.argsort(stable=True).split(counts.tolist())]

    def __len__(self) -> int:
        """Batches in a full epoch."""
        return max(self._items // self.size, 1)

    def rows(self, generator: np.random.Generator) -> Iterator[list[int]]:
        """The rows of each batch, class after class."""
        order = _Rounds(len(self._members), generator)
        members: dict[int, _Rounds] = {}
        for _ in range(len(self)):
            batch: list[int] = []
            for number in order.draw(self.classes):
                rows = self._members[number]
                if number not in members:
                    members[number] = _Rounds(len(rows), generator)
                whole, rest = divmod(self.images, len(rows))
                if whole:  # a class may be large, and this is done for every batch
                    batch += rows.tolist() * whole
                batch += [int(rows[position]) for position in members[number].draw(rest)]
            yield batch


class ShuffledBatches(EpochBatches):
    """Batches of a plain shuffle without the last incomplete one: the published Proxy Anchor protocol.

    Args:
        items: number of items, or their ``(N,)`` labels, of which only the length counts.
        size: rows in a batch, over all processes together.
        seed: 0 or more.
        rank: number of this process.
        ranks: number of processes.

    Raises:
        ValueError: fewer items than ``size``, or a number below 1.

    Example:
        >>> [len(batch) for batch in ShuffledBatches(7, size=3, seed=0)]
        [3, 3]
    """

    def __init__(self, items: int | Tensor, *, size: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        if isinstance(items, Tensor) and items.ndim:  # one without dimensions is a number
            items = len(items)
        self._items = _check.integer("items", items)
        size = _check.integer("size", size)
        if not 1 <= size <= self._items:
            raise InputError(
                f"the batch size must lie between 1 and the number of items, {self._items}, got {size}; "
                "incomplete batches are left out, so none would remain"
            )
        super().__init__(size=size, seed=seed, rank=rank, ranks=ranks)

    def __len__(self) -> int:
        """Batches in a full epoch."""
        return self._items // self.size

    def rows(self, generator: np.random.Generator) -> Iterator[list[int]]:
        """The rows of each batch."""
        order = generator.permutation(self._items)
        for number in range(len(self)):
            yield [int(row) for row in order[number * self.size : (number + 1) * self.size]]


class _Rounds:
    """Draws from 0 to n-1 in shuffled rounds: each number once before any is drawn again."""

    def __init__(self, n: int, generator: np.random.Generator) -> None:
        self.n, self.generator = n, generator
        self.left: list[int] = []

    def draw(self, count: int) -> list[int]:
        """``count`` different numbers, at most n; those of a new round that are drawn already stay in the round."""
        drawn, self.left = self.left[:count], self.left[count:]
        if len(drawn) < count:
            fresh = [int(number) for number in self.generator.permutation(self.n)]
            taken = set(drawn)
            more = [number for number in fresh if number not in taken][: count - len(drawn)]
            taken = set(more)
            self.left = [number for number in fresh if number not in taken]
            drawn = drawn + more
        return drawn

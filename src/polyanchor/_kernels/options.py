"""Options of the loss, the counts that its means divide by, and the sums inside its logarithms."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polyanchor.types import Anchor, Pooling

STEEPEST = 60.0  # exp of it, times a million summands, is still a float32


@dataclass(frozen=True)
class LossOptions:
    """Options of the loss, as :func:`polyanchor.functional.multi_proxy_anchor_loss` explains them."""

    anchor: Anchor = "class"
    alpha: float = 32.0
    delta: float = 0.1
    gamma: float = 0.1
    pooling: Pooling = "softmax"

    @property
    def pull_by_class(self) -> bool:
        """The pull has a logarithm for each class; else one for each item."""
        return self.anchor != "data"

    @property
    def push_by_class(self) -> bool:
        """The push has a logarithm for each class; else one for each item."""
        return self.anchor == "class"

    @property
    def steep(self) -> bool:
        """Exponentials could overflow, so the largest exponent is subtracted first, which costs a pass."""
        return self.alpha * (1 + abs(self.delta)) > STEEPEST

    @property
    def narrow(self) -> bool:
        """Exponentials of the soft assignment to local centres could overflow."""
        return 1 / self.gamma > STEEPEST


@dataclass(frozen=True)
class Counts:
    """Counts that the terms are means over, of all processes that share the batch.

    Attributes:
        items: B, or a fraction of it where sampled classes stand for several.
        classes: C, or a fraction of it where sampled classes stand for several.
        present: ``()`` number of classes in the batch, |C+|.
    """

    items: float
    classes: float
    present: Tensor

    @classmethod
    def of(cls, labels: Tensor, classes: int) -> Counts:
        """The counts of a batch in one process."""
        ordered = labels.sort().values
        return cls(len(labels), classes, (ordered[1:] != ordered[:-1]).sum() + 1)


@dataclass(frozen=True)
class LogSums:
    r"""The :math:`\log \sum e^z` inside the logarithms of the loss; -inf over no exponents.

    Processes that hold parts of the classes or rows combine theirs with ``torch.logaddexp``.

    Attributes:
        pull: ``(C,)`` class-wise, or ``(B,)`` item by item.
        push: ``(C,)`` class-wise, or ``(B,)`` item by item.
    """

    pull: Tensor
    push: Tensor

    def loss(self, options: LossOptions, counts: Counts) -> Tensor:
        """``()`` loss, or the share of it that belongs to these classes and items."""
        pulls = counts.present if options.pull_by_class else counts.items
        pushes = counts.classes if options.push_by_class else counts.items
        return lse0(self.pull).sum() / pulls + lse0(self.push).sum() / pushes


def lse0(log_sum: Tensor) -> Tensor:
    """``log(1 + e^z)`` without overflow. ``softplus`` is not it: beyond its threshold it drops the 1."""
    return torch.logaddexp(log_sum, log_sum.new_zeros(()))

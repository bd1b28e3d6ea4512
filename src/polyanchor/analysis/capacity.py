"""The share of items that still receive a usable gradient, epoch by epoch: the capacity left for training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from polyanchor.analysis.gradients import QUANTILES, CosineLoss, Strength, strength
from polyanchor.config.builders import make_batches
from polyanchor.config.schema import Config
from polyanchor.datasets.items import Items
from polyanchor.datasets.transforms import Transform
from polyanchor.runs.embed import embed

USABLE = 0.01
"""A gradient counts as usable above this share of the mean one at the end of the first epoch."""


@dataclass(frozen=True)
class TrainingBatches:
    """The first batches of a configuration's first epoch: always the same rows with the same augmentation.

    Attributes:
        config: of the run; its seed decides the rows.
        items: the training items.
        transform: the training transform; None for vectors.
        classes: ``(C,)`` int64 ascending, the data source's ids; position is class number.
        count: batches, capped at those of the epoch.
    """

    config: Config
    items: Items
    transform: Transform | None
    classes: Tensor
    count: int = 4

    def embedded(self, model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        """``(B, D)`` embeddings and ``(B,)`` class numbers of each batch, the model in evaluation mode.

        Leaves the modes of the model and torch's generator as they were.
        """
        for rows in islice(make_batches(self.config, self.items.labels), self.count):
            embeddings, _ = embed(
                model,
                self.items.subset(torch.tensor(rows)),
                self.transform,
                on_bad=self.config.data.on_bad_image,
                channels_last=self.config.run.channels_last,
                description="gradients",
            )
            yield embeddings.vectors, torch.searchsorted(self.classes, embeddings.labels)


class Capacity(Callback):
    r"""Measures after every epoch how many items of fixed training batches receive a usable gradient.

    Pass it to :func:`polyanchor.training.train.fit` as ``callbacks=[Capacity(batches)]``; it does not change the
    training. With :math:`n_i` the length of the gradient of item i along the sphere, times B
    (:class:`~polyanchor.analysis.gradients.Strength`), and :math:`\bar n` its mean at the end of the first epoch:

    .. math:: \text{usable} = \frac{1}{N} \#\{i : n_i > 0.01\, \bar n\}

    Args:
        batches: to measure.

    Attributes:
        rows: one for each epoch: ``epoch`` from 1; ``usable``; ``usable_pull`` and ``usable_push`` for the lengths of
            the two parts against the same threshold; ``mean``, ``quantiles`` (0.1, 0.5, 0.9) of :math:`n_i`; ``pull``
            and ``push``, their means per unit of cosine.
    """

    def __init__(self, batches: TrainingBatches) -> None:
        self.batches = batches
        self.rows: list[dict[str, Any]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        learner: Any = pl_module
        loss = CosineLoss(learner.loss)
        measured = [strength(loss.at(*batch)) for batch in self.batches.embedded(learner.model)]
        first = self.rows[0]["mean"] if self.rows else None
        self.rows.append({"epoch": trainer.current_epoch + 1, **capacity_of(joined(measured), first)})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])


def joined(parts: list[Strength]) -> Strength:
    """The items of several batches as one."""
    return Strength(*(torch.cat([getattr(part, name) for part in parts]) for name in Strength.__dataclass_fields__))


def capacity_of(received: Strength, first: float | None = None) -> dict[str, Any]:
    """A row of :attr:`Capacity.rows`, without its epoch.

    Args:
        received: of N items.
        first: mean length at the end of the first epoch; None in that epoch.

    Example:
        >>> zero, norm = torch.zeros(4), torch.tensor([0.0, 0.0, 1.0, 3.0])
        >>> capacity_of(Strength(zero, zero, norm, norm, zero))["usable"]
        0.5
    """
    mean = float(received.norm.mean())
    threshold = USABLE * (mean if first is None else first)
    return {
        "usable": _share(received.norm, threshold),
        "usable_pull": _share(received.pull_norm, threshold),
        "usable_push": _share(received.push_norm, threshold),
        "mean": mean,
        "quantiles": received.norm.quantile(received.norm.new_tensor(QUANTILES)).tolist(),
        "pull": float(received.pull.mean()),
        "push": float(received.push.mean()),
    }


def _share(lengths: Tensor, threshold: float) -> float:
    return float((lengths > threshold).double().mean())

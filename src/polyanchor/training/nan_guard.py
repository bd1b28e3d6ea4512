"""Stop the training at a loss or gradient that is NaN or infinite, before it reaches the weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from polyanchor._check import NotFiniteError
from polyanchor._io import JobFailedError, save_tensors
from polyanchor.datasets.loading import Batch, ItemDataset, collate
from polyanchor.datasets.samplers import EpochBatches, Row
from polyanchor.distributed.comm import Ranks
from polyanchor.runs.folder import RunFolder
from polyanchor.training.module import Learner

_CHECK_EVERY = 10  # steps on an accelerator: the progress bar waits for the loss as often


class DivergedError(NotFiniteError, JobFailedError):
    """Training stopped at a step that was not finite; the message names its batch and the file that holds it."""


class Step(NamedTuple):
    """A training step and the rows of its batch."""

    epoch: int
    number: int
    rows: Tensor


class FiniteSteps(Callback):
    """Checks the loss and the gradients of every step, and saves the batch of the first that is not finite.

    On a CPU a bad step is not taken. To avoid waiting for an accelerator, its values are read every ten steps, after an
    epoch and before a checkpoint is written, so no checkpoint holds NaN. With ``16-mixed`` gradients are not checked:
    the gradient scaler expects overflows and skips their steps.

    Args:
        folder: of the run, where the batch is saved.
        dataset: reads the batch again, with the same augmentation.
        batches: the rows of all ranks in a step.
        ranks: processes that train together. All find the same; rank 0 saves the batch.
    """

    def __init__(
        self, folder: RunFolder, dataset: ItemDataset, batches: EpochBatches, ranks: Ranks | None = None
    ) -> None:
        self.folder, self.dataset, self.batches, self.ranks = folder, dataset, batches, ranks or Ranks()
        self._step: Step | None = None
        self._pending: list[tuple[Step, str, Tensor]] = []
        self._every, self._epochs = 1, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._every = 1 if trainer.strategy.root_device.type == "cpu" else 2 * _CHECK_EVERY  # two values a step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self._step = Step(trainer.current_epoch, batch_idx, batch.rows)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self._watch("the loss", loss.detach().isfinite())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        learner = cast(Learner, pl_module)
        if not learner.empty_step:  # which has no gradients, on all ranks
            self._watch("a gradient", learner.loss.gradient_norm(optimizer, float("inf")).isfinite())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check()
        self._step, self._epochs = None, trainer.current_epoch + 1

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check()

    def _watch(self, what: str, finite: Tensor) -> None:
        assert self._step is not None  # a step has begun
        self._pending.append((self._step, what, finite))
        if len(self._pending) >= self._every:
            self._check()

    def _check(self) -> None:
        reason = self._first_bad()
        if reason is not None:
            raise NotFiniteError(reason)

    def _first_bad(self) -> str | None:
        """The first value that is not finite since the last check; its step becomes the current one."""
        pending, self._pending = self._pending, []
        if not pending or bool(torch.stack([finite for _, _, finite in pending]).all()):
            return None
        self._step, what, _ = next(entry for entry in pending if not entry[2])
        return f"{what} is NaN or infinite"

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn any ``NotFiniteError`` into one that names the step and the file with its batch.

        Raises:
            DivergedError: something was not finite.
        """
        try:
            yield
        except NotFiniteError as error:
            reason = self._first_bad() or str(error)  # an earlier step, not read yet, may be the cause
            checkpoint = self.folder.last
            kept = f"{checkpoint} is from before it. " if checkpoint.is_file() else ""
            advice = (
                "Resuming comes to the same step again: begin a new run with a lower optim.lr, or correct the items"
            )
            if self._step is None:
                raise DivergedError(f"after epoch {self._epochs}: {reason}. {kept}{advice}") from error
            step = self._step
            names = self.ranks.run_on_rank0(lambda: self._save(step, reason))
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise DivergedError(
                f"epoch {self._step.epoch + 1}, step {self._step.number + 1}: {reason}. Its batch of {len(names)} "
                f"({shown}) is in {self.folder.not_finite}. {kept}{advice}"
            ) from error

    def _save(self, step: Step, reason: str) -> list[str]:
        """The batch as the network saw it, with the names of its items."""
        rows = step.rows.tolist() if self.ranks.size == 1 else self.batches.whole(step.epoch, step.number)
        batch = collate(self.dataset.__getitems__([Row(row, step.epoch) for row in rows]))
        names = [self.dataset.items.name(row) for row in batch.rows.tolist()]
        metadata = {
            "epoch": str(step.epoch + 1),
            "step": str(step.number + 1),
            "reason": reason,
            "names": json.dumps(names),
        }
        tensors = {"inputs": batch.inputs, "labels": batch.labels, "rows": batch.rows}
        save_tensors(tensors, self.folder.not_finite, metadata)
        return names

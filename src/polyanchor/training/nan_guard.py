"""A loss or a gradient that is NaN or infinite stops the training before it reaches the weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from polyanchor._check import NotFiniteError
from polyanchor._io import JobFailedError, save_tensors
from polyanchor.datasets.loading import Batch, ItemDataset, collate
from polyanchor.datasets.samplers import EpochBatches, Row
from polyanchor.distributed.comm import Ranks
from polyanchor.runs.folder import RunFolder
from polyanchor.training.module import parted, total_norm

_LOOK_EVERY = 10  # steps on an accelerator: as often as the progress bar reads the loss, and waits for it


class DivergedError(NotFiniteError, JobFailedError):
    """Training stopped at a step that was not finite; the message names its batch and the file that holds it."""


class Step(NamedTuple):
    """Where a step is, and what it trains on."""

    epoch: int
    number: int
    rows: Tensor


class FiniteSteps(Callback):
    """Looks at the loss and the gradients of every step, and keeps the batch of the first that is not finite.

    On a CPU a bad step is not taken at all. An accelerator is not waited for: it is asked every ten steps, after
    an epoch and before a checkpoint is written, so that the checkpoints stay good. With ``16-mixed`` the gradients
    are left to the gradient scaler, whose steps may overflow as a matter of course.

    Args:
        folder: of the run, where the batch is saved.
        dataset: gives the batch once more, augmented as it was.
        batches: knows what all ranks together had in a step.
        ranks: processes that train together. All of them find the same; the first one saves the batch.
    """

    def __init__(
        self, folder: RunFolder, dataset: ItemDataset, batches: EpochBatches, ranks: Ranks | None = None
    ) -> None:
        self.folder, self.dataset, self.batches, self.ranks = folder, dataset, batches, ranks or Ranks()
        self._step: Step | None = None
        self._unread: list[tuple[Step, str, Tensor]] = []
        self._every, self._epochs = 1, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._every = 1 if trainer.strategy.root_device.type == "cpu" else 2 * _LOOK_EVERY  # two looks a step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self._step = Step(trainer.current_epoch, batch_idx, batch.rows)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self._watch("the loss", loss.detach().isfinite())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        alike, parts = parted(optimizer, cast(nn.Module, pl_module.loss))
        if alike or parts:
            largest = total_norm(alike, parts, self.ranks.mesh, float("inf"))
            self._watch("a gradient", largest.isfinite())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look()
        self._step, self._epochs = None, trainer.current_epoch + 1

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._look()

    def _watch(self, what: str, finite: Tensor) -> None:
        assert self._step is not None  # a step has begun
        self._unread.append((self._step, what, finite))
        if len(self._unread) >= self._every:
            self._look()

    def _look(self) -> None:
        found = self._first_bad()
        if found is not None:
            raise NotFiniteError(found)

    def _first_bad(self) -> str | None:
        """What went wrong first since the last look, whose step becomes the present one."""
        unread, self._unread = self._unread, []
        if not unread or bool(torch.stack([finite for _, _, finite in unread]).all()):
            return None
        self._step, what, _ = next(entry for entry in unread if not entry[2])
        return f"{what} is NaN or infinite"

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Save the batch of the step that was not finite, whoever found it, and say where it is.

        Raises:
            DivergedError: something was not finite.
        """
        try:
            yield
        except NotFiniteError as error:
            reason = self._first_bad() or str(error)  # an earlier step may be the cause, and nobody has looked yet
            last = self.folder.last
            kept = f"{last} is from before it. " if last.is_file() else ""
            advice = "Resuming comes to the same step again: begin a new run with a lower optim.lr, or mend the items"
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
        said = {
            "epoch": str(step.epoch + 1),
            "step": str(step.number + 1),
            "reason": reason,
            "names": json.dumps(names),
        }
        tensors = {"inputs": batch.inputs, "labels": batch.labels, "rows": batch.rows}
        save_tensors(tensors, self.folder.not_finite, said)
        return names

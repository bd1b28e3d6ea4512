"""The LightningModule: training step, optimizer groups, schedule, warm-up and validation."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from polyanchor._io import JobFailedError
from polyanchor.config.schema import Config, Optim
from polyanchor.datasets.loading import Batch
from polyanchor.distributed.comm import Ranks
from polyanchor.distributed.data_parallel import joined_batch_loss
from polyanchor.losses.base import EmbeddingLoss
from polyanchor.losses.proxies import fixed_lengths
from polyanchor.models.embedding import EmbeddingModel
from polyanchor.models.grad_cache import embed_in_micro_batches
from polyanchor.types import RetrievalReport

Validate = Callable[[EmbeddingModel], RetrievalReport]


class Learner(LightningModule):
    """Model and loss in one module, so that checkpoints and gradient synchronisation include the proxies.

    Args:
        model: inputs -> embeddings.
        loss: embeddings, class numbers -> loss; its parameters are the proxies.
        config: of the run.
        classes: ``(C,)`` int64 ascending, the data source's ids of the training classes; position is class number.
        batch_items: items of a batch, over all ranks.
        steps_per_epoch: batches of an epoch.
        ranks: processes that train together, each with its part of a batch.
        validate: evaluates the model on the held-out classes; None if there are none.
    """

    classes: Tensor

    def __init__(
        self,
        model: EmbeddingModel,
        loss: EmbeddingLoss,
        config: Config,
        *,
        classes: Tensor,
        batch_items: int,
        steps_per_epoch: int,
        ranks: Ranks | None = None,
        validate: Validate | None = None,
    ) -> None:
        super().__init__()
        self.model, self.loss, self.config = model, loss, config
        self.batch_items = batch_items
        self.steps_per_epoch, self.validate = steps_per_epoch, validate
        self.ranks = ranks or Ranks()
        self.empty_step = False  # no rank has an item
        self.register_buffer("classes", classes)
        if loss.mesh is not None:  # each rank has other proxies, and their whole gradient
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, ["loss.proxies"])
        self.skipped: set[str] = set()
        self.notes: tuple[str, ...] = ()
        self._loss_sum, self._loss_items = torch.zeros(()), 0  # Lightning's own mean forgets what was before a resume

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """``batch`` -> ``()`` loss of all ranks; None, which skips the step, if every image was skipped."""
        self.skipped.update(batch.skipped)
        count = self._items_of_all(batch)
        self.empty_step = count == 0
        if count == 0 and self.ranks.size == 1:
            return None
        embeddings = self._embed(batch.inputs) if len(batch.labels) else self._embed_nothing()
        if self.empty_step:  # DistributedDataParallel needs a backward pass all the same
            return embeddings.sum()
        numbers = torch.searchsorted(self.classes, batch.labels)
        loss: Tensor
        if self.ranks.mesh is None or self.loss.mesh is not None:
            loss = self.loss(embeddings, numbers)
        else:
            loss = joined_batch_loss(self.loss, embeddings, numbers, self.ranks.mesh)
        self.log("train/loss_step", loss.detach(), on_step=True, on_epoch=False, batch_size=count)
        self._loss_sum, self._loss_items = self._loss_sum + loss.detach() * count, self._loss_items + count
        return loss

    def _items_of_all(self, batch: Batch) -> int:
        """Items of the step on all ranks together."""
        if self.ranks.size == 1:
            return len(batch.labels)
        if self.config.data.on_bad_image == "stop":
            return self.batch_items
        return sum(self.ranks.all_gather_object(len(batch.labels)))

    def _embed_nothing(self) -> Tensor:
        """``(0, D)`` embeddings, in the dtype of the other ranks' under autocast too."""
        if self.config.model.sync_bn:
            raise JobFailedError(
                "model.sync_bn needs items on every device in every step, and one has none; make the batch larger"
            )
        weight = next(self.model.parameters())  # used, so that this rank takes part in the all-reduce of gradients
        features = torch.zeros(0, self.model.features, device=self.device, dtype=weight.dtype)
        if self.model.head is None:
            features = features + weight.sum() * 0
        return self.model.embed_features(features)

    def _embed(self, inputs: Tensor) -> Tensor:
        if inputs.ndim == 4:  # images come channels-last: no copy, unless the configuration sets the other format
            channels_last = self.config.run.channels_last
            inputs = inputs.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        return embed_in_micro_batches(self.model, inputs, self.config.batches.micro_batch_size)

    def on_after_backward(self) -> None:
        """Without gradients, a step without items changes nothing, weight decay and moments included."""
        if self.empty_step:
            self.zero_grad(set_to_none=True)

    def on_train_start(self) -> None:
        """Lightning does not call ``on_train_epoch_start`` for an epoch that is resumed within."""
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        """Freeze the backbone during the warm-up epochs."""
        self.model.backbone_frozen = self.current_epoch < self.config.optim.warmup_epochs
        self.model.train()

    def on_train_epoch_end(self) -> None:
        """Evaluate on the held-out classes; the logged metrics choose the best epoch."""
        self.loss.check()  # an error that is still pending on the device must not reach a checkpoint
        if self._loss_items:
            self.log("train/loss_epoch", self._loss_sum / self._loss_items)
        self._loss_sum, self._loss_items = torch.zeros(()), 0
        if self.validate is None:
            return
        report = self.validate(self.model)
        self.notes = tuple(f"validation: {note}" for note in report.notes)
        self.log_dict({f"val/{name}": value for name, value in report.means.items()})

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        """Step, and with ``optim.renormalize_proxies`` restore the lengths of the proxies."""
        with fixed_lengths(self.loss) if self.config.optim.renormalize_proxies else nullcontext():
            super().optimizer_step(*args, **options)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm over all ranks where they share the proxies, which Lightning does not know."""
        self.loss.clip_gradients(optimizer, gradient_clip_algorithm, gradient_clip_val or 0.0)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.loss.include_shards(checkpoint)
        so_far = checkpoint["so_far"]
        self._loss_sum, self._loss_items = so_far["loss_sum"], so_far["loss_items"]
        self.skipped, self.notes = set(so_far["skipped"]), tuple(so_far["notes"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what an interrupted epoch needs to go on; all ranks call this."""
        self.loss.exclude_shards(checkpoint)
        checkpoint["so_far"] = {
            "loss_sum": self._loss_sum.cpu(),
            "loss_items": self._loss_items,
            "skipped": sorted(set().union(*self.ranks.all_gather_object(self.skipped))),
            "notes": list(self.notes),
        }

    def configure_optimizers(self) -> Any:
        """AdamW with the groups ``backbone``, ``head``, ``proxies``, and the schedule on all of them."""
        optim = self.config.optim
        optimizer = torch.optim.AdamW(parameter_groups(self.model, self.loss, self.config))
        self.loss.attach(optimizer)
        schedule = partial(
            schedule_factor, steps_per_epoch=self.steps_per_epoch, epochs=self.config.run.epochs, optim=optim
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def parameter_groups(model: EmbeddingModel, loss: EmbeddingLoss, config: Config) -> list[dict[str, Any]]:
    """The optimizer's groups, each with its own learning rate and weight decay; empty groups are left out."""
    optim = config.optim
    groups = {
        "backbone": (model.backbone, optim.lr, optim.weight_decay),
        "head": (model.head, optim.lr * optim.head_lr_mult, optim.weight_decay),
        "proxies": (loss, optim.lr * optim.proxy_lr_mult, optim.proxy_weight_decay),
    }
    return [
        {"name": name, "params": parameters, "lr": lr, "weight_decay": decay}
        for name, (module, lr, decay) in groups.items()
        if module is not None and (parameters := list(module.parameters()))
    ]


def schedule_factor(step: int, *, steps_per_epoch: int, epochs: int, optim: Optim) -> float:
    """The schedule: the factor of every group's learning rate at a step.

    It is 1 during the warm-up epochs. After them, with t from 0 to 1 over the remaining steps: ``constant`` 1;
    ``cosine`` from 1 to 0; ``one-cycle`` from 1/25 up to 1 over the first 30 %, then down to 0, both as half cosines
    (Smith and Topin 2018, in its common form); ``step`` multiplied by ``step_factor`` every ``step_epochs``.

    Args:
        step: optimizer step, from 0.
        steps_per_epoch: batches in an epoch.
        epochs: epochs in all, warm-up included.
        optim: the schedule and its parameters.

    Example:
        >>> one_cycle = Optim(schedule="one-cycle")
        >>> [round(schedule_factor(s, steps_per_epoch=10, epochs=10, optim=one_cycle), 2) for s in (0, 30, 99)]
        [0.04, 1.0, 0.0]
    """
    warm = optim.warmup_epochs * steps_per_epoch
    if step < warm or optim.schedule == "constant":
        return 1.0
    if optim.schedule == "step":
        return optim.step_factor ** ((step - warm) // (optim.step_epochs * steps_per_epoch))
    t = min(1.0, (step - warm) / max(1, epochs * steps_per_epoch - warm))
    if optim.schedule == "cosine":
        return _half_cosine(t)
    rise = 0.3
    if t < rise:
        return 1 / 25 + (1 - 1 / 25) * (1 - _half_cosine(t / rise))
    return _half_cosine((t - rise) / (1 - rise))


def _half_cosine(t: float) -> float:
    return (1 + math.cos(math.pi * t)) / 2

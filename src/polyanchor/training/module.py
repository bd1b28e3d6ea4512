"""Model, loss and optimizer as Lightning wants them: the step, the groups, the warm-up, the validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from polyanchor._io import JobFailedError
from polyanchor.config.schema import Config, Optim
from polyanchor.datasets.loading import Batch
from polyanchor.distributed import sharded_proxies
from polyanchor.distributed.comm import Ranks, all_gather_stack
from polyanchor.distributed.data_parallel import joined_batch_loss
from polyanchor.distributed.sharded_loss import ShardedMultiProxyAnchorLoss, step_samples
from polyanchor.losses.multi_proxy_anchor import MultiProxyAnchorLoss
from polyanchor.losses.proxies import fixed_lengths
from polyanchor.models.embedding import EmbeddingModel
from polyanchor.models.grad_cache import embed_in_micro_batches
from polyanchor.types import RetrievalReport


def parted(optimizer: Optimizer, loss: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The gradients that all ranks have alike, and this rank's parts of the others: sharded or sampled proxies."""
    found = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    alike = [gradient for gradient in found if not isinstance(gradient, DTensor)]
    parts = [gradient.to_local() for gradient in found if isinstance(gradient, DTensor)]
    sample = loss.sample if isinstance(loss, ShardedMultiProxyAnchorLoss) else None
    if sample is not None and sample.proxies.grad is not None:
        parts.append(sample.proxies.grad)
    return alike, parts


def total_norm(alike: Sequence[Tensor], parts: Sequence[Tensor], mesh: DeviceMesh | None, kind: float) -> Tensor:
    """Norm of all gradients together, ``()``, the same on every rank; one message if there are parts.

    Args:
        alike: see :func:`parted`.
        parts: likewise; all ranks have some or none has.
        mesh: the ranks that hold them.
        kind: of the norm: 2, or infinity for the largest magnitude.
    """
    norms = [get_total_norm(alike, norm_type=kind)] if alike else []
    if parts:
        assert mesh is not None  # parts of something
        norms += all_gather_stack(get_total_norm(parts, norm_type=kind), mesh).unbind()
    return torch.linalg.vector_norm(torch.stack(norms), kind) if norms else torch.zeros(())


@torch.no_grad()
def clip(optimizer: Optimizer, loss: nn.Module, mesh: DeviceMesh | None, how: str | None, bound: float) -> None:
    """Clip by ``"value"`` or by ``"norm"``, as torch's functions of these names do; None: not."""
    alike, parts = parted(optimizer, loss)
    if how == "value":
        for gradient in (*alike, *parts):
            gradient.clamp_(-bound, bound)
    elif how == "norm":
        factor = (bound / (total_norm(alike, parts, mesh, 2.0) + 1e-6)).clamp(max=1.0)
        for gradient in (*alike, *parts):
            gradient.mul_(factor)


def factor(step: int, *, steps_per_epoch: int, epochs: int, optim: Optim) -> float:
    """What every group's learning rate is multiplied by in the given step.

    During the warm-up epochs 1. After them, with t from 0 to 1 over what is left: ``constant`` 1; ``cosine``
    from 1 to 0; ``one-cycle`` from 1/25 up to 1 over the first 30 %, then down to 0, both as half cosines (Smith
    and Topin 2018, in the form that became usual); ``step`` multiplied by ``step_factor`` every ``step_epochs``.

    Args:
        step: optimizer step, from 0.
        steps_per_epoch: batches in an epoch.
        epochs: epochs in all, warm-up included.
        optim: the schedule and its parameters.

    Example:
        >>> one_cycle = Optim(schedule="one-cycle")
        >>> [round(factor(s, steps_per_epoch=10, epochs=10, optim=one_cycle), 2) for s in (0, 30, 99)]
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


Validate = Callable[[EmbeddingModel], RetrievalReport]


class Learner(LightningModule):
    """One module for model and loss, so that checkpoints and gradient synchronisation cover the proxies too.

    Args:
        model: inputs -> embeddings.
        loss: embeddings, class numbers -> loss; its parameters are the proxies.
        config: of the run.
        classes: ``(C,)`` int64 ascending, the data source's ids of the training classes; position is class number.
        batch_items: items of a batch, of all ranks together.
        steps_per_epoch: batches in an epoch.
        ranks: processes that train together, each with its part of a batch.
        validate: measures the model on the held-out classes, or None if there are none.
    """

    classes: Tensor

    def __init__(
        self,
        model: EmbeddingModel,
        loss: nn.Module,
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
        self._nobody = False  # has an item in this step
        self.register_buffer("classes", classes)
        if isinstance(loss, ShardedMultiProxyAnchorLoss):  # each rank has the whole gradient of other proxies
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, ["loss.proxies"])
        self.skipped: set[str] = set()
        self.notes: tuple[str, ...] = ()
        self._loss_sum, self._loss_items = torch.zeros(()), 0  # Lightning's own mean forgets what was before a resume

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """``batch`` -> ``()`` loss of all ranks; None (the step is left out) if every image of it was skipped."""
        self.skipped.update(batch.skipped)
        count = self._items_of_all(batch)
        self._nobody = count == 0
        if count == 0 and self.ranks.size == 1:
            return None
        embeddings = self._embedded(batch.inputs) if len(batch.labels) else self._none()
        if self._nobody:  # DistributedDataParallel wants a backward pass all the same
            return embeddings.sum()
        numbers = torch.searchsorted(self.classes, batch.labels)
        loss: Tensor
        if self.ranks.mesh is None or isinstance(self.loss, ShardedMultiProxyAnchorLoss):
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

    def _none(self) -> Tensor:
        """The embeddings of no items, ``(0, D)``, in the dtype that other ranks' have under autocast too."""
        if self.config.model.sync_bn:
            raise JobFailedError(
                "model.sync_bn needs items on every device in every step, and one has none; make the batch larger"
            )
        head = self.model.head  # used, so that this rank takes part in the reduction of gradients
        return self.model.embed_features(torch.zeros(0, head.in_features, device=self.device, dtype=head.weight.dtype))

    def _embedded(self, inputs: Tensor) -> Tensor:
        if inputs.ndim == 4:  # images come channels-last: no copy, unless the other format is asked for
            channels_last = self.config.run.channels_last
            inputs = inputs.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        return embed_in_micro_batches(self.model, inputs, self.config.batches.micro_batch_size)

    def on_after_backward(self) -> None:
        """A step without items leaves everything as it is, weight decay and moments included."""
        if self._nobody:
            self.zero_grad(set_to_none=True)

    def on_train_start(self) -> None:
        """A run that resumes inside an epoch gets no ``on_train_epoch_start`` for it."""
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        """The backbone stands still during the warm-up epochs."""
        self.model.backbone_frozen = self.current_epoch < self.config.optim.warmup_epochs
        self.model.train()

    def on_train_epoch_end(self) -> None:
        """Measure on the held-out classes; what is logged here chooses the best epoch."""
        if isinstance(self.loss, MultiProxyAnchorLoss) and not isinstance(self.loss, ShardedMultiProxyAnchorLoss):
            self.loss.check()  # a bad batch that an accelerator found must not get into a checkpoint unsaid
        if self._loss_items:
            self.log("train/loss_epoch", self._loss_sum / self._loss_items)
        self._loss_sum, self._loss_items = torch.zeros(()), 0
        if self.validate is None:
            return
        report = self.validate(self.model)
        self.notes = tuple(f"validation: {note}" for note in report.notes)
        self.log_dict({f"val/{name}": value for name, value in report.means.items()})

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        """As always, with the proxies as long after it as before where the configuration says so."""
        with fixed_lengths(self.loss) if self.config.optim.renormalize_proxies else nullcontext():
            super().optimizer_step(*args, **options)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As always; of proxies that are spread over the ranks, as if one process had all of them."""
        if isinstance(self.loss, ShardedMultiProxyAnchorLoss):
            clip(optimizer, self.loss, self.ranks.mesh, gradient_clip_algorithm, gradient_clip_val or 0.0)
        elif any(parameter.grad is not None for parameter in self.parameters()):  # torch fails if a step had no item
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if isinstance(self.loss, ShardedMultiProxyAnchorLoss):
            sharded_proxies.put_in(checkpoint, self.loss)
        so_far = checkpoint.get("so_far")
        if so_far is not None:  # runs of former versions have none
            self._loss_sum, self._loss_items = so_far["loss_sum"], so_far["loss_items"]
            self.skipped, self.notes = set(so_far["skipped"]), tuple(so_far["notes"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """All ranks call this."""
        sharded_proxies.leave_out(checkpoint)
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
        if isinstance(self.loss, ShardedMultiProxyAnchorLoss) and self.loss.negative_sample_rate < 1:
            step_samples(self.loss, optimizer)
        schedule = partial(factor, steps_per_epoch=self.steps_per_epoch, epochs=self.config.run.epochs, optim=optim)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def parameter_groups(model: EmbeddingModel, loss: nn.Module, config: Config) -> list[dict[str, Any]]:
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

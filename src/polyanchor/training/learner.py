"""Model, loss and optimizer as Lightning wants them: the step, the groups, the warm-up, the validation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from polyanchor.data.dataset import Batch
from polyanchor.losses.multi_proxy_anchor import MultiProxyAnchorLoss
from polyanchor.losses.proxies import fixed_lengths
from polyanchor.models.embedding import EmbeddingModel
from polyanchor.models.pieces import embed_in_pieces
from polyanchor.training.config import Config
from polyanchor.training.schedule import factor
from polyanchor.types import RetrievalReport

Validate = Callable[[EmbeddingModel], RetrievalReport]


class Learner(LightningModule):
    """One module for model and loss, so that checkpoints and gradient synchronisation cover the proxies too.

    Args:
        model: inputs -> embeddings.
        loss: embeddings, class numbers -> loss; its parameters are the proxies.
        config: of the run.
        classes: ``(C,)`` int64 ascending, the data source's ids of the training classes; position is class number.
        steps_per_epoch: batches in an epoch.
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
        steps_per_epoch: int,
        validate: Validate | None = None,
    ) -> None:
        super().__init__()
        self.model, self.loss, self.config = model, loss, config
        self.steps_per_epoch, self.validate = steps_per_epoch, validate
        self.register_buffer("classes", classes)
        self.skipped: set[str] = set()
        self.notes: tuple[str, ...] = ()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """``batch`` -> ``()`` loss; None (the step is left out) if every image of it was skipped."""
        self.skipped.update(batch.skipped)
        if len(batch.labels) == 0:
            return None
        inputs = batch.inputs
        if inputs.ndim == 4:  # images come channels-last: no copy, unless the other format is asked for
            channels_last = self.config.run.channels_last
            inputs = inputs.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        embeddings = embed_in_pieces(self.model, inputs, self.config.batches.piece)
        loss: Tensor = self.loss(embeddings, torch.searchsorted(self.classes, batch.labels))
        self.log("train/loss", loss.detach(), on_step=True, on_epoch=True, batch_size=len(batch.labels))
        return loss

    def on_train_start(self) -> None:
        """A run that resumes inside an epoch gets no ``on_train_epoch_start`` for it."""
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        """The backbone stands still during the warm-up epochs."""
        self.model.backbone_frozen = self.current_epoch < self.config.optim.warmup_epochs
        self.model.train()

    def on_train_epoch_end(self) -> None:
        """Measure on the held-out classes; what is logged here chooses the best epoch."""
        if isinstance(self.loss, MultiProxyAnchorLoss):
            self.loss.check()  # a bad batch that an accelerator found must not get into a checkpoint unsaid
        if self.validate is None:
            return
        report = self.validate(self.model)
        self.notes = tuple(f"validation: {note}" for note in report.notes)
        self.log_dict({f"val/{name}": value for name, value in report.means.items()})

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        """As always, with the proxies as long after it as before where the configuration says so."""
        with fixed_lengths(self.loss) if self.config.optim.proxy_length == "fixed" else nullcontext():
            super().optimizer_step(*args, **options)

    def configure_optimizers(self) -> Any:
        """AdamW with the groups ``backbone``, ``head``, ``proxies``, and the schedule on all of them."""
        optim = self.config.optim
        optimizer = torch.optim.AdamW(parameter_groups(self.model, self.loss, self.config))
        schedule = partial(factor, steps_per_epoch=self.steps_per_epoch, epochs=self.config.run.epochs, optim=optim)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def parameter_groups(model: EmbeddingModel, loss: nn.Module, config: Config) -> list[dict[str, Any]]:
    """The optimizer's groups, each with its own learning rate and weight decay; empty groups are left out."""
    optim = config.optim
    groups = {
        "backbone": (model.backbone, optim.lr, optim.weight_decay),
        "head": (model.head, optim.lr * optim.head_multiple, optim.weight_decay),
        "proxies": (loss, optim.lr * optim.proxy_multiple, optim.proxy_weight_decay),
    }
    return [
        {"name": name, "params": parameters, "lr": lr, "weight_decay": decay}
        for name, (module, lr, decay) in groups.items()
        if module is not None and (parameters := list(module.parameters()))
    ]

"""What each epoch was like: its loss, its measures, and how far and how long the proxies were."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn

from polyanchor.distributed.sharded_loss import ShardedMultiProxyAnchorLoss
from polyanchor.functional import unit_rows
from polyanchor.losses.proxies import proxies_of

_WATCHED = 1_000  # proxies, spread over the classes: more would cost memory and say no more


class History(Checkpoint):
    """A row an epoch, in the checkpoints and in ``results.json``.

    Keys: ``loss`` (mean over the steps), ``val/...`` (measures on held-out classes), and for a loss with proxies
    ``proxy_turn``, the median angle in degrees between a proxy at the start and at the end of the epoch, and
    ``proxy_length``, their median length at its end.

    A Checkpoint by type because Lightning calls those, alone, after the validation of an epoch is logged.

    Args:
        loss: whose proxies are watched.
    """

    def __init__(self, loss: nn.Module) -> None:
        self.loss = loss
        self.rows: list[dict[str, float]] = []
        self._before: Tensor | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._before is None:
            self._before = watched(self.loss)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {name: value for name, value in logged.items() if name.startswith("val/")}
        if "train/loss_epoch" in logged:
            row["loss"] = logged["train/loss_epoch"]
        now = watched(self.loss)
        if now is not None and self._before is not None:
            row["proxy_turn"] = float(turned(self._before, now).median())
            row["proxy_length"] = float(now.norm(dim=1).median())
        self.rows.append(row)
        self._before = now

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "before": self._before}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self._before = list(state_dict["rows"]), state_dict["before"]


def watched(loss: nn.Module) -> Tensor | None:
    """``(W, D)`` copies of some proxies on the CPU, evenly spread; None if the loss has none."""
    proxies = proxies_of(loss)
    if proxies is None:
        return None
    if isinstance(loss, ShardedMultiProxyAnchorLoss):
        return loss.some_rows(_WATCHED).cpu()
    rows = proxies.detach().flatten(0, 1)
    step = -(-len(rows) // _WATCHED)
    return rows[::step].cpu().clone()


def turned(before: Tensor, after: Tensor) -> Tensor:
    r"""Angle between the rows of two matrices, in degrees.

    .. math:: 2 \arcsin \tfrac12 \lVert \hat a - \hat b \rVert

    which is exact for small angles too, where the inverse cosine is not.

    Args:
        before: ``(W, D)`` floating.
        after: likewise.

    Example:
        >>> turned(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        tensor([ 0., 45.])
    """
    chord = (unit_rows(before) - unit_rows(after)).norm(dim=1)
    return torch.rad2deg(2 * torch.asin((chord / 2).clamp(max=1)))

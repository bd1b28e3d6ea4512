"""The base of the losses: what a training loop needs beside the value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from polyanchor.losses.proxies import proxies_of, turn

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class EmbeddingLoss(nn.Module):
    """``(B, D)`` embeddings, ``(B,)`` labels -> ``()``; every process holds all of its parameters.

    :class:`polyanchor.distributed.sharded_loss.ShardedMultiProxyAnchorLoss` overrides these methods for proxies that
    are sharded over the ranks; all ranks then call them together.

    Attributes:
        mesh: the ranks that share the proxies, and whose rows the loss gathers itself; None: nobody shares them.
    """

    mesh: DeviceMesh | None = None

    def check(self) -> None:
        """Raise what a device has found wrong with an earlier batch; such a loss overrides this."""

    def gradients(self, optimizer: Optimizer) -> list[Tensor]:
        """The gradients of the optimizer's parameters that this process holds."""
        parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
        return [parameter.grad for parameter in parameters if parameter.grad is not None]

    def gradient_norm(self, optimizer: Optimizer, order: float = 2.0) -> Tensor:
        """``()`` norm of all gradients of the optimizer's parameters; ``order`` inf: the largest magnitude."""
        return get_total_norm(self.gradients(optimizer), norm_type=order)

    @torch.no_grad()
    def clip_gradients(self, optimizer: Optimizer, algorithm: str | None, bound: float) -> None:
        """Clip by ``"value"`` or ``"norm"`` as ``torch.nn.utils.clip_grad_value_`` and ``clip_grad_norm_`` do."""
        if algorithm == "value":
            for gradient in self.gradients(optimizer):
                gradient.clamp_(-bound, bound)
        elif algorithm == "norm":
            factor = (bound / (self.gradient_norm(optimizer) + 1e-6)).clamp(max=1.0)
            for gradient in self.gradients(optimizer):
                gradient.mul_(factor)

    def attach(self, optimizer: Optimizer) -> None:
        """Prepare an optimizer that has just been made; sampled proxies need a hook in its steps."""

    def full_proxies(self) -> Tensor | None:
        """``(C, K, D)`` of all classes, detached; None without proxies."""
        proxies = proxies_of(self)
        return None if proxies is None else proxies.detach()

    @torch.no_grad()
    def point_proxies(self, first: int, directions: Tensor) -> None:
        """Turn the proxies of the classes from ``first`` on to ``(c, K, D)`` directions; their lengths stay.

        A direction of length 0 leaves its proxy alone. All ranks that share the proxies call this alike.
        """
        proxies = proxies_of(self)
        if proxies is not None:
            turn(proxies[first : first + len(directions)], directions)

    def spaced_proxies(self, limit: int) -> Tensor | None:
        """``(W, D)`` copies of at most ``limit`` proxies, evenly spaced over the classes; None without proxies."""
        proxies = self.full_proxies()
        if proxies is None:
            return None
        rows = proxies.flatten(0, 1)
        return rows[:: -(-len(rows) // limit)].clone()

    def full_state_dict(self) -> dict[str, Tensor]:
        """The state as one process has it."""
        return self.state_dict()

    def exclude_shards(self, checkpoint: dict[str, Any]) -> None:
        """Take what is sharded out of a Lightning checkpoint, which one rank writes."""

    def include_shards(self, checkpoint: dict[str, Any]) -> None:
        """Put the present proxies in the place of the excluded ones, which :meth:`load_shards` reads later."""

    def save_shards(self, folder: Path, optimizer: Optimizer | None = None) -> None:
        """Write what :meth:`exclude_shards` takes out, with its optimizer state, to a folder."""

    def load_shards(self, folder: Path, optimizer: Optimizer | None = None) -> None:
        """Read what :meth:`save_shards` wrote, on any number of ranks."""

"""Gradient caching: batches larger than memory, exact for losses that couple the items of a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from polyanchor import _check


def embed_in_micro_batches(model: nn.Module, inputs: Tensor, micro_batch_size: int) -> Tensor:
    """``model(inputs)`` with the memory of ``micro_batch_size`` inputs, but value and gradients of the whole batch.

    Losses of metric learning couple the items of a batch, so accumulating gradients of smaller batches is not
    equivalent. Here each micro batch goes through the network and only its embeddings are kept; the loss sees all of
    them; in the backward pass each micro batch goes through the network again, just before its gradients are needed.
    The last one, which is needed first, is kept, so n micro batches cost n - 1 additional forward passes of one.

    Dropout draws the same numbers both times, autocast is restored, and buffers change once. Layers that couple items
    *inside the network* see a micro batch: batch norm in training mode normalises by its statistics. Keep the
    statistics of pretrained backbones fixed (``model.freeze_bn``), or the micro batches large.

    Args:
        model: inputs -> ``(B, D)`` embeddings, row by row.
        inputs: ``(B, ...)``.
        micro_batch_size: largest size of a micro batch; sizes differ by at most one. 0: all at once.

    Raises:
        ValueError: ``micro_batch_size`` is below 0.

    References:
        Gao, Zhang, Han, Callan, RepL4NLP 2021, arXiv:2101.06983.

    Example:
        >>> from polyanchor import MultiProxyAnchorLoss
        >>> model, loss = nn.Linear(8, 4), MultiProxyAnchorLoss(3, 4)
        >>> inputs, labels = torch.randn(7, 8), torch.tensor([0, 0, 1, 1, 2, 2, 2])
        >>> loss(embed_in_micro_batches(model, inputs, 2), labels).backward()
        >>> model.weight.grad.shape
        torch.Size([4, 8])
    """
    micro_batch_size = _check.at_least_0("micro_batch_size", micro_batch_size)
    if not 0 < micro_batch_size < len(inputs):
        embeddings: Tensor = model(inputs)
        return embeddings
    *parts, last = inputs.tensor_split(-(-len(inputs) // micro_batch_size))
    return torch.cat([*(_embedded_twice(model, part) for part in parts), model(last)])


def _embedded_twice(model: nn.Module, part: Tensor) -> Tensor:
    """``model(part)`` now, and again in the backward pass with the buffers of now."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    first = True

    def run(part: Tensor) -> Tensor:
        nonlocal first
        if first:
            first = False
            return model(part)
        copies = {name: buffer.clone() for name, buffer in before.items()}  # whose changes are dropped
        return functional_call(model, copies, (part,))

    return checkpoint(run, part, use_reentrant=False)

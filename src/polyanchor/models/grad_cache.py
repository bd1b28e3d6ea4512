"""A batch larger than memory: embedded in pieces, and exact for losses that look at the whole batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from polyanchor import _check


def embed_in_micro_batches(model: nn.Module, inputs: Tensor, piece: int) -> Tensor:
    """``model(inputs)`` with the memory of ``piece`` inputs: value and gradients are those of the whole batch.

    Losses of metric learning couple the items of a batch, so adding up gradients of smaller batches is another
    training. Here each piece goes through the network and only its embeddings are kept; the loss sees all of them; on
    the way back each piece goes through the network again, just before its gradients are needed (gradient caching).
    The last piece, whose turn comes first, is kept. n pieces so cost n - 1 forward passes of a piece more.

    Dropout draws the same numbers both times, autocast is as it was, and buffers change once. What looks at other
    items *inside the network* does see a piece instead of the batch: batch norm in training mode normalises by the
    statistics of each piece. Keep the statistics of pretrained backbones fixed (``model.freeze_bn``), or the
    pieces large.

    Args:
        model: inputs -> ``(B, D)`` embeddings, row by row.
        inputs: ``(B, ...)``.
        piece: at most so many at once; pieces differ by one in length at most. 0: all.

    Raises:
        ValueError: a ``piece`` below 0.

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
    piece = _check.at_least_0("piece", piece)
    if not 0 < piece < len(inputs):
        embeddings: Tensor = model(inputs)
        return embeddings
    *parts, last = inputs.tensor_split(-(-len(inputs) // piece))
    return torch.cat([*(_embedded_twice(model, part) for part in parts), model(last)])


def _embedded_twice(model: nn.Module, part: Tensor) -> Tensor:
    """Through the model now, and again in the backward pass, from the buffers as they are now."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    first = True

    def run(part: Tensor) -> Tensor:
        nonlocal first
        if first:
            first = False
            return model(part)
        copies = {name: buffer.clone() for name, buffer in before.items()}  # what changes them is thrown away
        return functional_call(model, copies, (part,))

    return checkpoint(run, part, use_reentrant=False)

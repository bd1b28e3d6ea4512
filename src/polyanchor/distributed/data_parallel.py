"""Any loss of a batch that is spread over processes: the loss and gradients of one process with the whole batch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from polyanchor._errors import InputError
from polyanchor.distributed.comm import all_gather_rows, all_ranks, counts_of_all


class DataParallelLoss(nn.Module):
    """A loss whose batch is spread over the ranks, each of which calls it with its own rows.

    Embeddings and labels of all ranks are gathered, and every rank computes the loss of the whole batch: pairs,
    triplets, miners and proxies see what they would see in one process. All ranks get the same loss, bit for bit if
    their machines compute alike.

    ``DistributedDataParallel`` around the model averages gradients over the ranks, where the gradient of the whole
    batch is a sum of what each rank adds; so the embeddings get R times their gradient. The gradient of the loss's own
    parameters (proxies) is whole on every rank, and so is its mean. This module may be inside of
    ``DistributedDataParallel``, which also keeps the replicas equal where ranks round differently, or outside of it,
    without a message for the proxies.

    Args:
        loss: ``(B, D)`` embeddings, ``(B,)`` labels -> ``()``: of this package, of pytorch-metric-learning, or your
            own; it must draw no random numbers, or the same on all ranks.
        mesh: the ranks, of one dimension; by default all ranks of the process group.

    Raises:
        RuntimeError: ``torch.distributed`` is not initialised.

    Example:
        >>> import polyanchor as pa
        >>> import torch
        >>> import torch.distributed as dist
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> loss = DataParallelLoss(pa.MultiProxyAnchorLoss(num_classes=3, embedding_dim=8))
        >>> loss(torch.randn(4, 8), torch.tensor([0, 0, 1, 2])).shape
        torch.Size([])
        >>> dist.destroy_process_group()
    """

    def __init__(self, loss: nn.Module, mesh: DeviceMesh | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.mesh = all_ranks() if mesh is None else mesh

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """``(b, D)`` embeddings of this rank, b may be 0, and ``(b,)`` integer labels -> ``()`` loss of all ranks."""
        return joined_batch_loss(self.loss, embeddings, labels, self.mesh)

    @property
    def proxies(self) -> Tensor | None:
        """The proxies of the wrapped loss."""
        return getattr(self.loss, "proxies", None)


def joined_batch_loss(
    loss: Callable[[Tensor, Tensor], Tensor], embeddings: Tensor, labels: Tensor, mesh: DeviceMesh
) -> Tensor:
    """The loss of :class:`DataParallelLoss`; three messages forward (counts, embeddings, labels), none backward.

    Args:
        loss: of the whole batch.
        embeddings: ``(b, D)`` of this rank; its gradient is that of the whole batch times the number of ranks.
        labels: ``(b,)`` integer.
        mesh: the ranks.
    """
    if len(labels) != len(embeddings):  # before the gathering, which would mix up the rows
        raise InputError(f"labels must have one entry for each embedding, got {len(labels)} for {len(embeddings)}")
    counts = counts_of_all(len(embeddings), mesh)
    if sum(counts) == 0:
        raise InputError("the ranks must hold at least one row together, got none on any of them")
    gathered = all_gather_rows(embeddings, mesh, counts, replicated_gradient=True)
    if gathered.requires_grad:
        gathered.register_hook(lambda gradient: gradient * mesh.size())
    return loss(gathered, all_gather_rows(labels, mesh, counts))

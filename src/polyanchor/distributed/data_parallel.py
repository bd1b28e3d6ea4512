"""Any loss on a batch that is spread over processes: loss and gradients of one process with the joined batch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from polyanchor._errors import InputError
from polyanchor.distributed.comm import all_gather_rows, all_ranks, counts_of_all


class DataParallelLoss(nn.Module):
    """A loss whose batch is spread over the ranks, each of which calls it with its own rows.

    Embeddings and labels of all ranks are gathered, and every rank computes the loss of all of them: pairs, triplets,
    miners and proxies see what they would see in one process. All ranks get the same loss, to the last bit if their
    machines compute alike.

    ``DistributedDataParallel`` around the model takes the mean over the ranks. What each rank adds to the gradient of
    the joined batch is a summand, not a share; so the embeddings get R times their gradient, and the mean is the
    gradient of one process. The gradient of the loss's own parameters (proxies) is whole on every rank, and its mean
    over ranks the same: this module may be inside of ``DistributedDataParallel``, which also keeps the replicas
    equal where ranks round differently, or outside of it, without a message for them.

    Args:
        loss: ``(B, D)`` embeddings, ``(B,)`` labels -> ``()``: of this package, of pytorch-metric-learning, or your
            own; it must not draw random numbers, or draw the same on all ranks.
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
        """Those of the loss."""
        return getattr(self.loss, "proxies", None)


def joined_batch_loss(
    loss: Callable[[Tensor, Tensor], Tensor], embeddings: Tensor, labels: Tensor, mesh: DeviceMesh
) -> Tensor:
    """What :class:`DataParallelLoss` computes; three messages: numbers of rows, embeddings, labels; none backward.

    Args:
        loss: of the joined batch.
        embeddings: ``(b, D)`` of this rank; receives its part of the joined batch's gradient times the number of ranks.
        labels: ``(b,)`` integer.
        mesh: the ranks.
    """
    if len(labels) != len(embeddings):  # before the gathering, which would mix up the rows
        raise InputError(f"labels must have one entry for each embedding, got {len(labels)} for {len(embeddings)}")
    counts = counts_of_all(len(embeddings), mesh)
    if sum(counts) == 0:
        raise InputError("the ranks must hold at least one row together, got none on any of them")
    joined = all_gather_rows(embeddings, mesh, counts, each_finds_all=True)
    if joined.requires_grad:
        joined.register_hook(lambda gradient: gradient * mesh.size())
    return loss(joined, all_gather_rows(labels, mesh, counts))

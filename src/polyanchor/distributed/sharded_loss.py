"""The loss whose proxies are spread over the ranks by class."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor import empty as empty_shards

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor.distributed.exchange import all_ranks, counts_of_all, rows_of_all, sum_of_all
from polyanchor.distributed.negative_sampling import Sample, draw_sample
from polyanchor.distributed.shard_sweep import Piece, shard_loss
from polyanchor.functional import Anchor, Pooling, merging_penalty
from polyanchor.kernels.autograd import refuse_transforms
from polyanchor.kernels.family import Counts, Family
from polyanchor.losses.multi_proxy_anchor import MultiProxyAnchorLoss
from polyanchor.losses.proxies import Init, draw_proxies


class ShardedMultiProxyAnchorLoss(MultiProxyAnchorLoss):
    r"""The loss of :class:`polyanchor.MultiProxyAnchorLoss` with C / R of the C classes on each of R ranks.

    Memory for proxies, gradients and optimizer state, and the time of the loss, fall with the number of ranks; the loss
    is the same to rounding. Each rank calls it with its own rows of the batch; all ranks must call it together. Every
    rank gets the loss of the whole batch. The gradient of a rank's embeddings is R times that of the loss, so that
    ``DistributedDataParallel`` around the model, which takes the mean over ranks, makes the right gradient of it. The
    proxies' gradient is whole on the rank that holds them: keep this module out of ``DistributedDataParallel``.

    Rank r holds the classes of the r-th piece of ``torch.arange(C).chunk(R)``, which is how ``Shard(0)`` lays out a
    DTensor. They start as those that one process would draw from the same state of torch's generator.

    Args:
        num_classes: C of all ranks, at least as many that each rank gets some.
        embedding_dim: as for :class:`polyanchor.MultiProxyAnchorLoss`, as for the rest.
        mesh: the ranks, of one dimension; by default all ranks of the process group.
        proxies_per_class: likewise.
        anchor: likewise.
        alpha: likewise.
        delta: likewise.
        gamma: likewise.
        pooling: likewise.
        init: likewise.
        merging: likewise.
        negative_share: below 1, an approximation: in training mode only so large a share of the classes that are not in
            the batch take part, drawn anew for each step. See :mod:`polyanchor.distributed.negative_sampling`, and call
            its ``step_samples(loss, optimizer)`` once: the gradient is then that of a ``sample``, and one backward goes
            with each step.

    Attributes:
        proxies: Parameter ``(C, K, D)``, a DTensor sharded by class; ``proxies.to_local()`` is what is held here.
        first: number of the first class held here.
        sample: classes that took part in the last call, and their gradient, if ``negative_share`` is below 1.

    Raises:
        RuntimeError: ``torch.distributed`` is not initialised.
        ValueError: an option, shape, label or value is wrong, or a rank would hold no class. Values are looked at in
            the joined batch, so that all ranks raise the same.

    Example:
        >>> import torch.distributed as dist
        >>> store = dist.HashStore()
        >>> dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        >>> loss = ShardedMultiProxyAnchorLoss(num_classes=3, embedding_dim=8)
        >>> loss(torch.randn(4, 8), torch.tensor([0, 0, 1, 2])).shape, loss.proxies.to_local().shape
        (torch.Size([]), torch.Size([3, 10, 8]))
        >>> dist.destroy_process_group()
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        *,
        mesh: DeviceMesh | None = None,
        proxies_per_class: int = 10,
        anchor: Anchor = "class",
        alpha: float = 32.0,
        delta: float = 0.1,
        gamma: float = 0.1,
        pooling: Pooling = "softmax",
        init: Init = "fixed",
        merging: float = 0.0,
        negative_share: float = 1.0,
    ) -> None:
        if not 0 < _check.number("negative_share", negative_share) <= 1:
            raise InputError(f"negative_share must lie in (0, 1], got {negative_share!r}; 1 is exact")
        if negative_share < 1 and merging > 0:
            raise InputError("merging is a mean over all proxies, got it together with a negative_share below 1")
        with torch.device("meta"):  # nothing of the whole is made
            super().__init__(
                num_classes,
                embedding_dim,
                proxies_per_class=proxies_per_class,
                anchor=anchor,
                alpha=alpha,
                delta=delta,
                gamma=gamma,
                pooling=pooling,
                init=init,
                merging=merging,
            )
        self.negative_share = negative_share
        self.sample: Sample | None = None
        self.mesh = all_ranks() if mesh is None else mesh
        self.first = _first_class(num_classes, self.mesh)
        shape = num_classes, proxies_per_class, embedding_dim
        self.proxies = nn.Parameter(
            empty_shards(shape, dtype=torch.float32, device_mesh=self.mesh, placements=[Shard(0)])
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the proxies anew from torch's global generator, of which all ranks must be in the same state."""
        if self.proxies.is_meta:
            return
        with torch.no_grad():
            draw_proxies(_local(self.proxies), self.init, classes=len(self.proxies), first=self.first)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """``(b, D)`` embeddings of this rank, b may be 0, and ``(b,)`` integer labels -> ``()`` loss of all ranks."""
        refuse_transforms(embeddings, self.proxies, instead="use polyanchor.MultiProxyAnchorLoss, in one process,")
        if _check.capturing():
            raise InputError(
                "the class-sharded loss reads the sizes of all ranks' batches on the host, got a CUDA graph that is "
                "being captured; leave the loss out of the graph"
            )
        labels = _check.integer_labels("labels", labels, len(embeddings))
        classes = len(self.proxies)
        with torch.autocast(embeddings.device.type, enabled=False):
            counts = counts_of_all(len(embeddings), self.mesh)
            embeddings, labels = (rows_of_all(rows, self.mesh, counts) for rows in (embeddings, labels))
            proxies = _local(self.proxies)
            _check.loss_inputs(embeddings, proxies, labels)
            _check.finite("embeddings", embeddings)
            _check.class_range(labels, classes)
            leaf, pieces = self._taking_part(proxies, labels - self.first)
            loss = shard_loss(embeddings, leaf, pieces, self.family, Counts.of(labels, classes), self.mesh)
            if loss.device.type == "cpu" and not loss.detach().isfinite():
                raise _check.NotFiniteError(_check.LOST)  # the loss is the same on all ranks: so they all raise it
            if self.merging > 0:
                share = self.merging * len(proxies) / classes  # the penalty is a mean over classes
                loss = loss + sum_of_all(share * merging_penalty(proxies), self.mesh)
        return loss

    def _taking_part(self, proxies: Tensor, labels: Tensor) -> tuple[Tensor, list[Piece]]:
        """Proxies that receive the gradient, and the pieces of them."""
        if self.negative_share == 1 or not self.training:
            return proxies, [Piece(slice(0, len(proxies)), labels)]
        self.sample = sample = draw_sample(proxies, labels, self.negative_share)
        places = torch.full((len(proxies) + 1,), -1, device=labels.device)  # the last is for classes held elsewhere
        places[sample.classes[: sample.own]] = torch.arange(sample.own, device=labels.device)
        held = (labels >= 0) & (labels < len(proxies))
        cuts = slice(0, sample.own), slice(sample.own, len(sample.classes))
        pieces = [
            Piece(cuts[0], places[labels.where(held, -1)]),
            Piece(cuts[1], torch.full_like(labels, -1), sample.weight),
        ]
        return sample.proxies, [piece for piece in pieces if piece.classes.start < piece.classes.stop]

    def some_rows(self, most: int) -> Tensor:
        """``(W, D)`` copies of at most so many proxies, evenly spread over all classes, on every rank; all call it."""
        rows = _local(self.proxies.detach()).flatten(0, 1)
        centres = self.proxies.shape[1]
        step = -(-len(self.proxies) * centres // most)
        here = rows[-self.first * centres % step :: step]
        return rows_of_all(here, self.mesh, counts_of_all(len(here), self.mesh)).clone()

    @property
    def family(self) -> Family:
        """The options as the kernels take them."""
        return Family(self.anchor, self.alpha, self.delta, self.gamma, self.pooling)


def _local(proxies: Tensor) -> Tensor:
    assert isinstance(proxies, DTensor)
    return proxies.to_local()


def _first_class(classes: int, mesh: DeviceMesh) -> int:
    """Number of the first class of this rank: pieces are as torch.chunk and Shard(0) cut them."""
    ranks = mesh.size()
    piece = -(-classes // ranks)
    used = -(-classes // piece)
    if used < ranks:
        raise InputError(
            f"num_classes must leave no rank without a class, got {classes} for {ranks} ranks: in pieces of {piece} "
            f"they go to {used}; take {used} ranks, or proxies that are not sharded, which suit so few classes better"
        )
    return piece * mesh.get_local_rank()

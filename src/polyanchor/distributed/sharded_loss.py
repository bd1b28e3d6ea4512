"""The loss whose proxies are spread over the ranks by class.

Class-wise logarithms are complete on the rank that holds the class: only their sum is sent. An item-wise logarithm runs
over the classes of all ranks: between the two directions of the sweep each rank sends its sum for every row, B or 2 B
numbers. No rank looks at a proxy of another, and none reads its own proxies twice for the sake of the others.

The idea is Partial FC's (An et al., CVPR 2022, arXiv:2203.15565). The classes of the batch always take part. Of its
other classes each rank draws a share anew for every step, and one that is drawn stands for 1 / share of them: in a
class-wise push its logarithm counts so often, in an item-wise one its exponential does, inside of the logarithm. So the
class-wise push and its gradient are right in expectation. What the item-wise logarithm is taken of is right in
expectation; the logarithm itself is a little too small in the mean. Partial FC leaves the exponentials as they are.

The optimizer touches the drawn proxies alone: the others keep their place and their moments, without weight decay, as
under ``torch.optim.SparseAdam``. The count of steps in Adam's correction of its young moments is one for all proxies,
so the first steps of a proxy that is drawn late are longer than they would be, by up to about 1 / sqrt(share).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor import empty as empty_shards
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._kernels.blocks import Part, inverse_lengths
from polyanchor._kernels.fused import handed_out, refuse_transforms, wanted
from polyanchor._kernels.options import Counts, LogSums, LossOptions
from polyanchor._kernels.sweep import forward_sweep
from polyanchor.distributed.comm import all_gather_rows, all_gather_stack, all_ranks, all_reduce_sum, counts_of_all
from polyanchor.functional import Anchor, Pooling, center_regularizer
from polyanchor.losses.multi_proxy_anchor import MultiProxyAnchorLoss
from polyanchor.losses.proxies import Init, draw_proxies

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Piece:
    """Classes of this rank that stand for the same number of classes each.

    Attributes:
        classes: slice of the proxies held here.
        labels: ``(B,)`` int64, counted from the piece's first class; outside ``[0, c)`` for items of other classes.
        weight: how many classes each stands for; above 1 no item may be of one of them.
    """

    classes: slice
    labels: Tensor
    weight: float = 1.0


def shard_loss(
    embeddings: Tensor,
    proxies: Tensor,
    pieces: Sequence[Piece],
    family: LossOptions,
    counts: Counts,
    mesh: DeviceMesh,
) -> Tensor:
    """The loss of all ranks together, on every rank.

    Args:
        embeddings: ``(B, D)`` of all ranks, of any length; receives this rank's summand of the gradient times the
            number of ranks, as data-parallel training takes the mean over ranks where this loss needs the sum.
        proxies: ``(c, K, D)`` of the classes held here; receives its whole gradient.
        pieces: all of them, cut.
        family: the loss.
        counts: of all ranks together.
        mesh: the ranks.
    """
    wants = wanted(embeddings, proxies)
    if any(wants):
        loss: Tensor = _ShardLoss.apply(embeddings, proxies, pieces, family, counts, mesh)
        return loss
    return _loss_and_gradients(embeddings, proxies, pieces, family, counts, mesh, wants)[0]


class _ShardLoss(torch.autograd.Function):
    """First order; the gradients are made in the forward pass and handed out by the backward."""

    @staticmethod
    def forward(
        ctx: Any,
        embeddings: Tensor,
        proxies: Tensor,
        pieces: Sequence[Piece],
        family: LossOptions,
        counts: Counts,
        mesh: DeviceMesh,
    ) -> Tensor:
        loss, *ctx.made = _loss_and_gradients(
            embeddings, proxies, pieces, family, counts, mesh, ctx.needs_input_grad[:2]
        )
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.made is None:
            raise RuntimeError("the class-sharded loss gives its gradients once, got a second backward; call it again")
        made, ctx.made = ctx.made, None
        return *handed_out(made, upstream), None, None, None, None


def _loss_and_gradients(
    embeddings: Tensor,
    proxies: Tensor,
    pieces: Sequence[Piece],
    family: LossOptions,
    counts: Counts,
    mesh: DeviceMesh,
    wants: tuple[bool, ...],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss, and in the dtypes of the inputs their gradients as far as wanted."""
    wide = torch.promote_types(torch.promote_types(embeddings.dtype, proxies.dtype), torch.float32)
    rows = embeddings.to(wide)
    inverse = inverse_lengths(rows)[:, None]
    units = rows * inverse
    loss, to_units, to_proxies = _sweep(units, proxies.to(wide), pieces, family, counts, mesh, wants)
    if to_units is not None:
        along = (to_units * units).sum(dim=1, keepdim=True)
        to_units = to_units.addcmul_(units, along, value=-1).mul_(inverse * mesh.size()).to(embeddings.dtype)
    return loss, to_units, None if to_proxies is None else to_proxies.to(proxies.dtype)


def _sweep(
    units: Tensor,
    proxies: Tensor,
    pieces: Sequence[Piece],
    family: LossOptions,
    counts: Counts,
    mesh: DeviceMesh,
    wants: tuple[bool, ...],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss, this rank's summand of the units' gradient, its proxies' gradient."""
    sweeps, sizes = [], []
    for piece in pieces:
        part = Part(units, proxies[piece.classes].contiguous(), piece.labels)
        size = Counts(counts.items / piece.weight, counts.classes / piece.weight, counts.present)
        sweeps.append(forward_sweep(part, family, size, alone=True, wants=wants))
        sizes.append(size)
    found = [work.sums() for work in sweeps]

    # What the items' logarithms run over, of all ranks together: (B,) each, the same on every rank.
    shared: dict[str, Tensor] = {}
    if not family.pull_by_class:
        shared["pull"] = torch.stack([sums.pull for sums in found]).logsumexp(0)
    if not family.push_by_class:
        weighted = [sums.push + math.log(piece.weight) for sums, piece in zip(found, pieces, strict=True)]
        shared["push"] = torch.stack(weighted).logsumexp(0)
    if shared:
        joined = all_gather_stack(torch.stack(list(shared.values())), mesh).logsumexp(0)
        shared = dict(zip(shared, joined, strict=True))

    none = units.new_full((1,), -math.inf)
    loss = replace(LogSums(none, none), **shared).loss(family, counts)
    if len(shared) < 2:
        by_class = [replace(sums, **dict.fromkeys(shared, none)) for sums in found]
        shares = [sums.loss(family, size) for sums, size in zip(by_class, sizes, strict=True)]
        loss = loss + all_reduce_sum(torch.stack(shares).sum(), mesh)

    done = [work.finish(replace(sums, **shared)) for work, sums in zip(sweeps, found, strict=True)]
    to_units = [swept.to_units for swept in done if swept.to_units is not None]
    to_proxies = [swept.to_proxies for swept in done if swept.to_proxies is not None]
    return (
        loss,
        sum(to_units[1:], to_units[0]) if to_units else None,
        (to_proxies[0] if len(to_proxies) == 1 else torch.cat(to_proxies)) if to_proxies else None,
    )


@dataclass(frozen=True)
class Sample:
    """Classes of a shard that take part in a step.

    Attributes:
        classes: ``(n,)`` int64, counted from the shard's first; those of the batch, ascending, then the drawn ones.
        own: how many of them are the batch's.
        weight: how many classes each of the drawn ones stands for.
        proxies: ``(n, K, D)`` copies of theirs, a leaf that receives the gradient.
    """

    classes: Tensor
    own: int
    weight: float
    proxies: Tensor


def draw_sample(proxies: Tensor, labels: Tensor, share: float) -> Sample:
    """Draw the classes of a step from torch's global generator, as dropout does.

    Args:
        proxies: ``(c, K, D)`` of the shard.
        labels: ``(B,)`` int64, counted from the shard's first class; outside ``[0, c)`` for items of other classes.
        share: of the classes without an item, above 0; rounded up to a whole number of them.

    Example:
        >>> sample = draw_sample(torch.rand(10, 1, 4), torch.tensor([7, 3, 7, 99]), 0.25)
        >>> sample.classes[:2].tolist(), len(sample.classes), sample.weight
        ([3, 7], 4, 4.0)
    """
    taken = torch.zeros(len(proxies), dtype=torch.bool, device=proxies.device)
    taken[labels[(labels >= 0) & (labels < len(proxies))]] = True
    own, others = taken.nonzero().flatten(), (~taken).nonzero().flatten()
    drawn = torch.randperm(len(others))[: math.ceil(share * len(others))].to(others.device)
    classes = torch.cat([own, others[drawn]])
    weight = len(others) / len(drawn) if len(drawn) else 1.0
    return Sample(classes, len(own), weight, proxies.detach()[classes].requires_grad_())


def step_samples(loss: ShardedMultiProxyAnchorLoss, optimizer: Optimizer) -> RemovableHandle:
    """Let each ``optimizer.step()`` from now on move the drawn proxies too.

    The gradient of a step is that of the drawn proxies; ``loss.proxies`` has none, so the optimizer passes it by. Then
    an optimizer of the same class and options takes the step of the drawn proxies with their part of the state, which
    is put back after it. For optimizers that treat each number alone, such as SGD, Adam and AdamW.

    Args:
        loss: with ``negative_sample_rate`` below 1.
        optimizer: one of whose groups holds ``loss.proxies``.

    Returns:
        What to call ``remove()`` of to end it.
    """

    def step(optimizer: Optimizer, args: Any, options: Any) -> None:
        sample, loss.sample = loss.sample, None
        if sample is not None and sample.proxies.grad is not None:
            _step(loss.proxies, sample, optimizer)

    return optimizer.register_step_post_hook(step)


@torch.no_grad()
def _step(proxies: Tensor, sample: Sample, optimizer: Optimizer) -> None:
    group = next(group for group in optimizer.param_groups if any(proxies is each for each in group["params"]))
    small = cast(Any, type(optimizer))([{**group, "params": [sample.proxies]}])
    whole = optimizer.state[proxies]
    small.state[sample.proxies] = {
        name: _local_negatives(value)[sample.classes] if value.shape == proxies.shape else value
        for name, value in whole.items()
    }
    small.step()
    for name, value in small.state[sample.proxies].items():
        if value.shape != sample.proxies.shape:
            whole[name] = value
            continue
        if name not in whole:
            whole[name] = torch.zeros_like(proxies)
        _local_negatives(whole[name])[sample.classes] = value
    _local_negatives(proxies)[sample.classes] = sample.proxies


def _local_negatives(value: Tensor) -> Tensor:
    assert isinstance(value, DTensor)
    return value.to_local()


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
        center_reg: likewise.
        negative_sample_rate: below 1, an approximation: in training mode only so large a share of the classes that are
            not in the batch take part, drawn anew for each step. See :mod:`polyanchor.distributed.sharded_loss`, and
            call its ``step_samples(loss, optimizer)`` once: the gradient is then that of a ``sample``, and one backward
            goes with each step.

    Attributes:
        proxies: Parameter ``(C, K, D)``, a DTensor sharded by class; ``proxies.to_local()`` is what is held here.
        first: number of the first class held here.
        sample: classes that took part in the last call, and their gradient, if ``negative_sample_rate`` is below 1.

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
        center_reg: float = 0.0,
        negative_sample_rate: float = 1.0,
    ) -> None:
        if not 0 < _check.number("negative_sample_rate", negative_sample_rate) <= 1:
            raise InputError(f"negative_sample_rate must lie in (0, 1], got {negative_sample_rate!r}; 1 is exact")
        if negative_sample_rate < 1 and center_reg > 0:
            raise InputError(
                "center_reg is a mean over all proxies, got it together with a negative_sample_rate below 1"
            )
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
                center_reg=center_reg,
            )
        self.negative_sample_rate = negative_sample_rate
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
            embeddings, labels = (all_gather_rows(rows, self.mesh, counts) for rows in (embeddings, labels))
            proxies = _local(self.proxies)
            _check.loss_inputs(embeddings, proxies, labels)
            _check.finite("embeddings", embeddings)
            _check.class_range(labels, classes)
            leaf, pieces = self._taking_part(proxies, labels - self.first)
            loss = shard_loss(embeddings, leaf, pieces, self.family, Counts.of(labels, classes), self.mesh)
            if loss.device.type == "cpu" and not loss.detach().isfinite():
                raise _check.NotFiniteError(_check.LOST)  # the loss is the same on all ranks: so they all raise it
            if self.center_reg > 0:
                share = self.center_reg * len(proxies) / classes  # the penalty is a mean over classes
                loss = loss + all_reduce_sum(share * center_regularizer(proxies), self.mesh)
        return loss

    def _taking_part(self, proxies: Tensor, labels: Tensor) -> tuple[Tensor, list[Piece]]:
        """Proxies that receive the gradient, and the pieces of them."""
        if self.negative_sample_rate == 1 or not self.training:
            return proxies, [Piece(slice(0, len(proxies)), labels)]
        self.sample = sample = draw_sample(proxies, labels, self.negative_sample_rate)
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
        return all_gather_rows(here, self.mesh, counts_of_all(len(here), self.mesh)).clone()

    @property
    def family(self) -> LossOptions:
        """The options as the kernels take them."""
        return LossOptions(self.anchor, self.alpha, self.delta, self.gamma, self.pooling)


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

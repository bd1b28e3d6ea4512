"""The loss whose proxies are sharded over the ranks by class.

A class-wise logarithm is complete on the rank that holds the class, so only the sum of them is sent. An item-wise
logarithm runs over the classes of all ranks: between the two directions of the sweep each rank sends its sum for every
row, B or 2 B numbers. No rank reads a proxy of another, and none reads its own proxies twice.

Sampled negatives follow Partial FC (An et al., CVPR 2022, arXiv:2203.15565). The classes of the batch always take part.
Each rank draws a share of its other classes anew for every step, and a drawn class stands for 1 / share of them: its
logarithm counts that often in a class-wise push, its exponential does inside an item-wise logarithm. So the class-wise
push and its gradient are unbiased. The argument of the item-wise logarithm is unbiased; the logarithm is a little too
small on average. Partial FC does not weight the exponentials.

The optimizer updates the drawn proxies alone: the others keep their values and their moments, without weight decay, as
under ``torch.optim.SparseAdam``. Adam's bias correction counts steps for all proxies together, so the first steps of a
proxy that is drawn late are longer than they would be, by up to about 1 / sqrt(share).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor import empty as empty_shards
from torch.nn.utils import get_total_norm
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
from polyanchor.losses.proxies import Init, draw_proxies, turn


class ShardedMultiProxyAnchorLoss(MultiProxyAnchorLoss):
    r"""The loss of :class:`polyanchor.MultiProxyAnchorLoss` with C / R of the C classes on each of R ranks.

    Memory for proxies, gradients and optimizer state, and the time of the loss, fall with the number of ranks; the loss
    is the same up to rounding. All ranks must call it together, each with its own rows of the batch, and every rank
    gets the loss of the whole batch. The gradient of a rank's embeddings is R times that of the loss, since
    ``DistributedDataParallel`` around the model averages over the ranks. The proxies' gradient is whole on the rank
    that holds them: keep this module out of ``DistributedDataParallel``.

    Rank r holds the classes of the r-th chunk of ``torch.arange(C).chunk(R)``, the layout of ``Shard(0)``. The initial
    proxies are those that one process would draw from the same state of torch's generator.

    Args:
        num_classes: C of all ranks together; each rank must get at least one.
        embedding_dim: D, columns of the embeddings.
        mesh: the ranks, of one dimension; by default all ranks of the process group.
        proxies_per_class: K, local centres of a class.
        anchor: ``"class"``, ``"data"`` or ``"mixed"``.
        alpha: sharpness, > 0.
        delta: margin in cosine units.
        gamma: width of the soft assignment to local centres, in cosine units, > 0.
        pooling: ``"softmax"``, ``"max"`` or ``"logsumexp"``.
        init: ``"fixed"`` or ``"kaiming"``, see :class:`polyanchor.MultiProxyAnchorLoss`.
        center_reg: weight, 0 or more, of :func:`polyanchor.functional.center_regularizer`.
        negative_sample_rate: below 1, an approximation: in training mode only this share of the classes that are not in
            the batch takes part, drawn anew for each step; see :mod:`polyanchor.distributed.sharded_loss`. Call
            :meth:`attach` once with the optimizer: the gradient is then that of a ``sample``, and each step takes one
            backward pass.

    Attributes:
        proxies: Parameter ``(C, K, D)``, a DTensor sharded by class; ``proxies.to_local()`` are those of this rank.
        first: number of this rank's first class.
        mesh: the ranks.
        sample: classes of the last call, with their gradient, if ``negative_sample_rate`` is below 1.

    Raises:
        RuntimeError: ``torch.distributed`` is not initialised.
        ValueError: an option, shape, label or value is wrong, or a rank would hold no class. Values are checked in
            the whole batch, so that all ranks raise the same.

    Example:
        >>> import torch.distributed as dist
        >>> store = dist.HashStore()
        >>> dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        >>> loss = ShardedMultiProxyAnchorLoss(num_classes=3, embedding_dim=8)
        >>> loss(torch.randn(4, 8), torch.tensor([0, 0, 1, 2])).shape, loss.proxies.to_local().shape
        (torch.Size([]), torch.Size([3, 10, 8]))
        >>> dist.destroy_process_group()
    """

    mesh: DeviceMesh

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
        with torch.device("meta"):  # no process allocates the proxies of all classes
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
        """Draw the proxies anew from torch's global generator, whose state must be the same on all ranks."""
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
            leaf, pieces = self._pieces(proxies, labels - self.first)
            options = LossOptions(self.anchor, self.alpha, self.delta, self.gamma, self.pooling)
            terms = Terms(pieces, options, Counts.of(labels, classes), self.mesh)
            loss: Tensor
            if any(wants := wanted(embeddings, leaf)):
                loss = _ShardLoss.apply(embeddings, leaf, terms)
            else:
                loss = _loss_and_gradients(embeddings, leaf, terms, wants)[0]
            if loss.device.type == "cpu" and not loss.detach().isfinite():
                raise _check.NotFiniteError(_check.LOST)  # the loss is the same on all ranks: so all raise it
            if self.center_reg > 0:
                share = self.center_reg * len(proxies) / classes  # the penalty is a mean over classes
                loss = loss + all_reduce_sum(share * center_regularizer(proxies), self.mesh)
        return loss

    def _pieces(self, proxies: Tensor, labels: Tensor) -> tuple[Tensor, list[Piece]]:
        """The proxies that take part and receive the gradient, and their pieces."""
        if self.negative_sample_rate == 1 or not self.training:
            return proxies, [Piece(slice(0, len(proxies)), labels)]
        self.sample = sample = draw_sample(proxies, labels, self.negative_sample_rate)
        positions = torch.full((len(proxies) + 1,), -1, device=labels.device)  # the last: classes of other ranks
        positions[sample.classes[: sample.own]] = torch.arange(sample.own, device=labels.device)
        local = (labels >= 0) & (labels < len(proxies))
        pieces = [
            Piece(slice(0, sample.own), positions[labels.where(local, -1)]),
            Piece(slice(sample.own, len(sample.classes)), torch.full_like(labels, -1), sample.weight),
        ]
        return sample.proxies, [piece for piece in pieces if piece.classes.start < piece.classes.stop]

    def gradients(self, optimizer: Optimizer) -> list[Tensor]:
        """The gradients that all ranks share, then those of this rank's proxies."""
        replicated, local = self._gradients(optimizer)
        return replicated + local

    def gradient_norm(self, optimizer: Optimizer, order: float = 2.0) -> Tensor:
        """``()`` norm of the gradients of all ranks, the same on every rank; one message if proxies have gradients."""
        replicated, local = self._gradients(optimizer)
        norms = [get_total_norm(replicated, norm_type=order)] if replicated else []
        if local:
            norms += all_gather_stack(get_total_norm(local, norm_type=order), self.mesh).unbind()
        return torch.linalg.vector_norm(torch.stack(norms), order) if norms else torch.zeros(())

    def _gradients(self, optimizer: Optimizer) -> tuple[list[Tensor], list[Tensor]]:
        gradients = super().gradients(optimizer)
        local = [gradient.to_local() for gradient in gradients if isinstance(gradient, DTensor)]
        if self.sample is not None and self.sample.proxies.grad is not None:
            local.append(self.sample.proxies.grad)
        return [gradient for gradient in gradients if not isinstance(gradient, DTensor)], local

    def attach(self, optimizer: Optimizer) -> None:
        """With sampled negatives, let each ``optimizer.step()`` update the drawn proxies; see :func:`step_samples`."""
        if self.negative_sample_rate < 1:
            step_samples(self, optimizer)

    def full_proxies(self) -> Tensor:
        """``(C, K, D)`` of all classes, on every rank; all ranks call this."""
        return cast(DTensor, self.proxies.detach()).full_tensor()

    @torch.no_grad()
    def point_proxies(self, first: int, directions: Tensor) -> None:
        """Turn those of the proxies that this rank holds."""
        local = _local(self.proxies)
        low, high = max(first, self.first), min(first + len(directions), self.first + len(local))
        if low < high:
            turn(local[low - self.first : high - self.first], directions[low - first : high - first])

    def spaced_proxies(self, limit: int) -> Tensor:
        """``(W, D)`` copies of at most ``limit`` proxies, evenly spaced, on every rank; all ranks call this."""
        rows = _local(self.proxies.detach()).flatten(0, 1)
        centres = self.proxies.shape[1]
        step = -(-len(self.proxies) * centres // limit)
        own = rows[-self.first * centres % step :: step]
        return all_gather_rows(own, self.mesh, counts_of_all(len(own), self.mesh)).clone()

    def full_state_dict(self) -> dict[str, Tensor]:
        """The state with the proxies of all classes; all ranks call this."""
        return self.state_dict() | {"proxies": self.full_proxies()}

    def exclude_shards(self, checkpoint: dict[str, Any]) -> None:
        """Take the proxies and their optimizer state out of a Lightning checkpoint, which one rank writes."""
        del checkpoint["state_dict"]["loss.proxies"]
        for saved in checkpoint.get("optimizer_states", []):
            saved["state"] = {
                number: entry
                for number, entry in saved["state"].items()
                if not any(isinstance(value, DTensor) for value in entry.values())
            }

    def include_shards(self, checkpoint: dict[str, Any]) -> None:
        """Put the present proxies in the place of the excluded ones, which :meth:`load_shards` reads later."""
        checkpoint["state_dict"]["loss.proxies"] = self.proxies.detach()

    def save_shards(self, folder: Path, optimizer: Optimizer | None = None) -> None:
        """:func:`~polyanchor.distributed.sharded_checkpoint.save_sharded`; all ranks call this."""
        from polyanchor.distributed.sharded_checkpoint import save_sharded  # needs a newer torch than the loss

        save_sharded(folder, self, optimizer)

    def load_shards(self, folder: Path, optimizer: Optimizer | None = None) -> None:
        """:func:`~polyanchor.distributed.sharded_checkpoint.load_sharded`; all ranks call this."""
        from polyanchor.distributed.sharded_checkpoint import load_sharded  # as above

        load_sharded(folder, self, optimizer)


def _local(tensor: Tensor) -> Tensor:
    assert isinstance(tensor, DTensor)
    return tensor.to_local()


def _first_class(classes: int, mesh: DeviceMesh) -> int:
    """Number of this rank's first class in the layout of torch.chunk and Shard(0)."""
    ranks = mesh.size()
    chunk = -(-classes // ranks)
    used = -(-classes // chunk)
    if used < ranks:
        raise InputError(
            f"num_classes must leave no rank without a class, got {classes} for {ranks} ranks: in chunks of {chunk} "
            f"they go to {used}; take {used} ranks, or proxies that are not sharded, which suit so few classes better"
        )
    return chunk * mesh.get_local_rank()


@dataclass(frozen=True)
class Piece:
    """Classes of this rank with the same weight.

    Attributes:
        classes: slice of this rank's proxies.
        labels: ``(B,)`` int64, counted from the piece's first class; outside ``[0, c)`` for items of other classes.
        weight: number of classes that each stands for; above 1 only for classes without an item.
    """

    classes: slice
    labels: Tensor
    weight: float = 1.0


class Terms(NamedTuple):
    """What a loss is computed of, beside the embeddings and the proxies."""

    pieces: Sequence[Piece]  # together all of this rank's proxies that take part
    options: LossOptions
    counts: Counts  # of all ranks together
    mesh: DeviceMesh


class _ShardLoss(torch.autograd.Function):
    """First order only: the forward pass computes the gradients, the backward pass scales them.

    The gradient of the ``(B, D)`` embeddings of all ranks is this rank's summand times the number of ranks, since
    data-parallel training averages over the ranks where this loss needs the sum; that of this rank's ``(c, K, D)``
    proxies is whole.
    """

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, proxies: Tensor, terms: Terms) -> Tensor:
        loss, *ctx.made = _loss_and_gradients(embeddings, proxies, terms, ctx.needs_input_grad[:2])
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.made is None:
            raise RuntimeError("the class-sharded loss gives its gradients once, got a second backward; call it again")
        made, ctx.made = ctx.made, None
        return *handed_out(made, upstream), None


def _loss_and_gradients(
    embeddings: Tensor, proxies: Tensor, terms: Terms, wants: tuple[bool, ...]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss, and the requested gradients in the dtypes of their inputs."""
    wide = torch.promote_types(torch.promote_types(embeddings.dtype, proxies.dtype), torch.float32)
    rows = embeddings.to(wide)
    inverse = inverse_lengths(rows)[:, None]
    units = rows * inverse
    loss, to_units, to_proxies = _sweep(units, proxies.to(wide), terms, wants)
    if to_units is not None:
        along = (to_units * units).sum(dim=1, keepdim=True)
        scale = inverse * terms.mesh.size()
        to_units = to_units.addcmul_(units, along, value=-1).mul_(scale).to(embeddings.dtype)
    return loss, to_units, None if to_proxies is None else to_proxies.to(proxies.dtype)


def _sweep(
    units: Tensor, proxies: Tensor, terms: Terms, wants: tuple[bool, ...]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss, this rank's summand of the units' gradient, its proxies' gradient."""
    pieces, options, counts, mesh = terms
    sweeps, sizes = [], []
    for piece in pieces:
        part = Part(units, proxies[piece.classes].contiguous(), piece.labels)
        size = Counts(counts.items / piece.weight, counts.classes / piece.weight, counts.present)
        sweeps.append(forward_sweep(part, options, size, alone=True, wants=wants))
        sizes.append(size)
    log_sums = [work.sums() for work in sweeps]

    # the arguments of the item-wise logarithms, over the classes of all ranks: (B,) each, the same on every rank
    shared: dict[str, Tensor] = {}
    if not options.pull_by_class:
        shared["pull"] = torch.stack([sums.pull for sums in log_sums]).logsumexp(0)
    if not options.push_by_class:
        weighted = [sums.push + math.log(piece.weight) for sums, piece in zip(log_sums, pieces, strict=True)]
        shared["push"] = torch.stack(weighted).logsumexp(0)
    if shared:
        joined = all_gather_stack(torch.stack(list(shared.values())), mesh).logsumexp(0)
        shared = dict(zip(shared, joined, strict=True))

    none = units.new_full((1,), -math.inf)
    loss = replace(LogSums(none, none), **shared).loss(options, counts)
    if len(shared) < 2:
        by_class = [replace(sums, **dict.fromkeys(shared, none)) for sums in log_sums]
        shares = [sums.loss(options, size) for sums, size in zip(by_class, sizes, strict=True)]
        loss = loss + all_reduce_sum(torch.stack(shares).sum(), mesh)

    done = [work.finish(replace(sums, **shared)) for work, sums in zip(sweeps, log_sums, strict=True)]
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
        own: number of classes of the batch.
        weight: number of classes that each drawn one stands for.
        proxies: ``(n, K, D)`` copies of their proxies, a leaf that receives the gradient.
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
        share: of the classes without an item, above 0; their number is rounded up.

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
    """Let each ``optimizer.step()`` update the drawn proxies too.

    Only the drawn proxies have a gradient; ``loss.proxies`` has none, so the optimizer skips it. A second optimizer of
    the same class and options then steps the drawn proxies with their part of the state, which is written back. This is
    right for elementwise optimizers such as SGD, Adam and AdamW.

    Args:
        loss: with ``negative_sample_rate`` below 1.
        optimizer: one of whose groups holds ``loss.proxies``.

    Returns:
        A handle whose ``remove()`` ends it.
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
        name: _local(value)[sample.classes] if value.shape == proxies.shape else value for name, value in whole.items()
    }
    small.step()
    for name, value in small.state[sample.proxies].items():
        if value.shape != sample.proxies.shape:
            whole[name] = value
            continue
        if name not in whole:
            whole[name] = torch.zeros_like(proxies)
        _local(whole[name])[sample.classes] = value
    _local(proxies)[sample.classes] = sample.proxies

"""A share of the negative classes instead of all of them: an approximation, for more classes than there is time for.

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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

if TYPE_CHECKING:
    from polyanchor.distributed.sharded_loss import ShardedMultiProxyAnchorLoss


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
        loss: with ``negative_share`` below 1.
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


def _local(value: Tensor) -> Tensor:
    assert isinstance(value, DTensor)
    return value.to_local()

"""How strongly the items of a batch are pulled and pushed, and how that is divided.

All numbers are multiplied by B, the items of the batch, so that they do not depend on it: for a loss that is a mean
over the items they are those of one item's own term.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor.analysis.proxies import effective_number
from polyanchor.analysis.similarity_gradient import CosineLoss, SimilarityGradient

QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Strength:
    """What each of B items receives, times B.

    Attributes:
        pull: ``(B,)`` attraction, the sum of -dL/ds over the cosines of its own class, per unit of cosine. Negative
            where these repel (possible between items).
        push: ``(B,)`` repulsion, the sum of dL/ds over all others.
        norm: ``(B,)`` length of its gradient along the sphere, per radian.
        pull_norm: ``(B,)`` the same of the pull alone.
        push_norm: ``(B,)`` the same of the push alone.
    """

    pull: Tensor
    push: Tensor
    norm: Tensor
    pull_norm: Tensor
    push_norm: Tensor


def strength(found: SimilarityGradient) -> Strength:
    """What each item of a batch receives.

    Example:
        >>> from polyanchor import MultiProxyAnchorLoss
        >>> from polyanchor.analysis.similarity_gradient import similarity_gradient
        >>> x, y = torch.randn(5, 8), torch.tensor([0, 0, 1, 1, 2])
        >>> strength(similarity_gradient(MultiProxyAnchorLoss(3, 8), x, y)).pull.shape
        torch.Size([5])
    """
    items = len(found.values)
    pull, push = -found.of("pull").sum(dim=1), found.of("push").sum(dim=1)
    norms = (found.vectors(part).norm(dim=1) for part in ("all", "pull", "push"))
    return Strength(*(items * value for value in (pull, push, *norms)))


@dataclass(frozen=True)
class ClassStrength:
    """What the M classes of a batch receive, times B.

    Attributes:
        classes: ``(M,)`` class numbers, ascending.
        items: ``(M,)`` items of each.
        pull: ``(M,)`` mean attraction of its items, as :attr:`Strength.pull`.
        push: ``(M,)`` mean repulsion of its items.
        attracts: ``(M,)`` attraction that its proxies (between items: its items) exert on its own items, all together.
        repels: ``(M,)`` repulsion that they exert on the items of other classes, all together.
    """

    classes: Tensor
    items: Tensor
    pull: Tensor
    push: Tensor
    attracts: Tensor
    repels: Tensor


def class_strength(found: SimilarityGradient) -> ClassStrength:
    """What each class of a batch receives, and what stands for it sends out.

    Example:
        >>> from polyanchor import MultiProxyAnchorLoss
        >>> from polyanchor.analysis.similarity_gradient import similarity_gradient
        >>> x, y = torch.randn(5, 8), torch.tensor([0, 0, 2, 2, 2])
        >>> class_strength(similarity_gradient(MultiProxyAnchorLoss(3, 8), x, y)).items
        tensor([2, 3])
    """
    each = strength(found)
    classes, place, counts = found.labels.unique(return_inverse=True, return_counts=True)
    pull, push = (part.new_zeros(len(classes)).index_add(0, place, part) / counts for part in (each.pull, each.push))
    attracts, repels = (len(place) * found.by_class(part).sum(dim=0)[classes] for part in ("pull", "push"))
    return ClassStrength(classes, counts, pull, push, -attracts, repels)


@dataclass(frozen=True)
class Concentration:
    """How evenly gradients are divided within a batch; NaN where there is nothing to divide.

    Attributes:
        pull_items: ``(M,)`` for each class in the batch, the effective number of its items that share its pull.
        items: ``(M,)`` its items.
        push_classes: ``(B,)`` for each item, the effective number of classes that its push comes from.
        others: ``(B,)`` classes that could push it.
    """

    pull_items: Tensor
    items: Tensor
    push_classes: Tensor
    others: Tensor


def concentration(found: SimilarityGradient) -> Concentration:
    r"""Effective numbers :math:`\exp(-\sum_m u_m \log u_m)` of the shares u of the pull and of the push.

    Shares are of the parts above 0: an item that its own class repels has no share of the pull.

    Example:
        >>> from polyanchor import MultiProxyAnchorLoss
        >>> from polyanchor.analysis.similarity_gradient import similarity_gradient
        >>> x, y = torch.eye(4), torch.tensor([0, 0, 1, 1])
        >>> concentration(similarity_gradient(MultiProxyAnchorLoss(3, 4), x, y)).items
        tensor([2, 2])
    """
    pull = -found.of("pull").sum(dim=1)
    present, counts = found.labels.unique(return_counts=True)
    of_class = torch.stack([_effective(pull[found.labels == one]) for one in present])
    classes = len(found.columns.unique())
    push = _effective(found.by_class("push"))
    return Concentration(of_class, counts, push, torch.full_like(push, classes - 1))


def _effective(weights: Tensor) -> Tensor:
    weights = weights.clamp(min=0)
    return effective_number(weights / weights.sum(dim=-1, keepdim=True))


@dataclass(frozen=True)
class Curve:
    """Mean pull and push of an item (times B) against its similarity to its own class.

    Attributes:
        own: cosine of every item to all of its own class.
        pull: as :attr:`Strength.pull`.
        push: as :attr:`Strength.push`.
    """

    own: tuple[float, ...]
    pull: tuple[float, ...]
    push: tuple[float, ...]


def pull_push_curve(
    loss: CosineLoss, own: Tensor, *, classes: int = 8, per_class: int = 4, other: float = 0.0
) -> Curve:
    """Does an item that is pulled home lose its push? From the loss itself, on a constructed batch.

    The batch has ``per_class`` items of each of ``classes`` classes, all in the same situation: cosine ``own`` to each
    proxy of its class (between items: to each item of its class) and ``other`` to all the rest. ``own`` moves,
    ``other`` stays. Where the loss knows fewer classes, all of them are taken.

    Args:
        loss: whose options, and numbers of classes and proxies, count; where its proxies are does not.
        own: ``(T,)`` floating, cosines in [-1, 1].
        classes: at least 2.
        per_class: at least 2.
        other: cosine.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> from polyanchor import MultiProxyAnchorLoss
        >>> curve = pull_push_curve(CosineLoss(MultiProxyAnchorLoss(4, 2, anchor="data")), torch.tensor([0.0, 0.9]))
        >>> [round(value, 2) for value in curve.push]
        [31.57, 31.57]
    """
    for name, count in (("classes", classes), ("per_class", per_class)):
        _check.count(name, count)
        if count < 2:
            raise InputError(f"{name} must be at least 2, got {count}")
    known = classes if loss.proxies is None else loss.proxies.shape[0]
    labels = torch.arange(min(classes, known)).repeat_interleave(per_class)
    columns = labels if loss.proxies is None else torch.arange(known).repeat_interleave(loss.proxies.shape[1])
    home = labels[:, None] == columns
    pulls, pushes = [], []
    for value in own.tolist():
        cosines = torch.where(home, value, other).double()
        if loss.proxies is None:
            cosines.fill_diagonal_(1)
        values = loss.gradient(cosines, labels)
        pulls.append(-float(values[home].sum()))
        pushes.append(float(values[~home].sum()))
    return Curve(tuple(own.tolist()), tuple(pulls), tuple(pushes))

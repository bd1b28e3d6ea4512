"""How strongly the items of a batch are pulled and pushed, and how pull and push are divided.

All numbers are multiplied by B, the items of the batch, so that they do not depend on it: for a loss that is a mean
over the items they are those of one item's own term.

A loss with proxies depends on an item through its cosines to the proxies, a loss between items through its cosines to
the others of the batch. :class:`CosineLoss` makes either a function of that matrix; autograd does the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from polyanchor import _check
from polyanchor._errors import InputError, InputTypeError
from polyanchor.analysis.proxies import effective_number
from polyanchor.functional import anchor_loss, pool, unit_rows
from polyanchor.losses.multi_proxy_anchor import MultiProxyAnchorLoss
from polyanchor.losses.pml import PmlLoss
from polyanchor.losses.proxies import proxies_of

Part = Literal["all", "pull", "push"]
QUANTILES = (0.1, 0.5, 0.9)
STEP = 1e-5
"""Angle in radians by which :func:`response` moves an item to either side."""


@dataclass(frozen=True)
class SimilarityGradient:
    """The gradient of a loss for the cosines of a batch of B items with P proxies, or with the P = B items themselves.

    Attributes:
        values: ``(B, P)`` float64, dL/ds. Between items it is symmetric, the derivative for the one cosine of the
            pair, and its diagonal is 0.
        similarity: ``(B, P)`` float64, the cosines.
        labels: ``(B,)`` int64, class number of each row.
        columns: ``(P,)`` int64, class number of each column.
        directions: ``(B, D)`` float64, the items at length 1.
        targets: ``(P, D)`` float64, the proxies or items of the columns, at length 1.
    """

    values: Tensor
    similarity: Tensor
    labels: Tensor
    columns: Tensor
    directions: Tensor
    targets: Tensor

    @property
    def own(self) -> Tensor:
        """``(B, P)`` bool: the column is of the item's own class, so it pulls; the others push."""
        return self.labels[:, None] == self.columns

    def of(self, part: Part) -> Tensor:
        """``(B, P)`` values of own classes (``"pull"``), of the others (``"push"``), or all; 0 elsewhere."""
        if part == "all":
            return self.values
        return self.values.masked_fill(~self.own if part == "pull" else self.own, 0)

    def by_class(self, part: Part = "all") -> Tensor:
        """``(B, C)`` sums of the values over the columns of each class; C is one more than the largest column class."""
        classes = int(self.columns.max()) + 1
        return self.values.new_zeros(len(self.values), classes).index_add(1, self.columns, self.of(part))

    def vectors(self, part: Part = "all") -> Tensor:
        r"""Gradient of the loss for the items at length 1, along the sphere.

        .. math:: g_i = \sum_p \frac{\partial L}{\partial s_{ip}} (t_p - s_{ip} \hat x_i)

        Args:
            part: whose cosines count.

        Returns:
            ``(B, D)`` float64; divided by its length, it is the autograd gradient of an embedding of that length.
        """
        values = self.of(part)
        radial = (values * self.similarity).sum(dim=1, keepdim=True)
        return values @ self.targets - radial * self.directions


class CosineLoss:
    """A loss as a function of a matrix of cosines, in float64 on the CPU.

    The loss is copied, so later changes to it have no effect. Terms that do not depend on the items (the centre
    regularizer of the family) are left out.

    Args:
        loss: :class:`polyanchor.MultiProxyAnchorLoss`, or one from :func:`polyanchor.losses.pml.pml_loss`. The
            distances of the latter must be cosines, or powers of Euclidean distances of unit vectors.

    Attributes:
        proxies: ``(C, K, D)`` float64 at length 1, or None for a loss between items.

    Raises:
        TypeError: another kind of loss.
        ValueError: a distance of another kind.

    Example:
        >>> from polyanchor import MultiProxyAnchorLoss
        >>> loss = CosineLoss(MultiProxyAnchorLoss(2, 4, proxies_per_class=1, anchor="data"))
        >>> cosines = torch.eye(2, dtype=torch.float64)
        >>> round(float(loss(cosines, torch.tensor([0, 1]))), 4)
        3.24
        >>> loss.gradient(cosines, torch.tensor([0, 1])).round(decimals=2)
        tensor([[-0.0000, 15.3700],
                [15.3700, -0.0000]], dtype=torch.float64)
    """

    def __init__(self, loss: nn.Module) -> None:
        if not isinstance(loss, MultiProxyAnchorLoss | PmlLoss):
            raise InputTypeError(
                "loss must be a MultiProxyAnchorLoss or a PmlLoss (polyanchor.losses.pml.pml_loss makes it), "
                f"got {type(loss).__name__}"
            )
        self._loss = deepcopy(loss).cpu().double().requires_grad_(False)
        proxies = proxies_of(self._loss)
        self.proxies = None if proxies is None else unit_rows(proxies.detach())
        if isinstance(self._loss, PmlLoss):
            for distance in _distances(self._loss):
                _check_distance(distance)

    def __call__(self, cosines: Tensor, labels: Tensor) -> Tensor:
        """``(B, C K)`` cosines to the proxies, or ``(B, B)`` between items, and ``(B,)`` class numbers -> ``()``."""
        loss = self._loss
        if isinstance(loss, MultiProxyAnchorLoss):
            pooled = pool(cosines.unflatten(1, loss.proxies.shape[:2]), pooling=loss.pooling, gamma=loss.gamma)
            return anchor_loss(pooled, labels, anchor=loss.anchor, alpha=loss.alpha, delta=loss.delta)
        assert isinstance(loss, PmlLoss)  # as the constructor checked
        size = 1 if self.proxies is None else self.proxies.shape[2]
        with _distances_from(loss, cosines):
            return loss(cosines.new_zeros(len(cosines), size), labels)

    def gradient(self, cosines: Tensor, labels: Tensor) -> Tensor:
        """Derivative for each cosine, in the shape of ``cosines``; between items symmetric with diagonal 0."""
        leaf = cosines.detach().clone().requires_grad_()
        loss = self(leaf, labels)
        if not loss.requires_grad:  # no pair was mined: the library returns a constant
            return torch.zeros_like(cosines)
        (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True)
        values = torch.zeros_like(cosines) if gradient is None else gradient
        return values if self.proxies is not None else (values + values.T).fill_diagonal_(0)

    def at(self, embeddings: Tensor, labels: Tensor) -> SimilarityGradient:
        """The gradient for the cosines of a batch.

        Args:
            embeddings: ``(B, D)`` floating, of any length.
            labels: ``(B,)`` int64 class numbers.
        """
        directions, labels = unit_rows(embeddings.detach().cpu().double()), labels.cpu()
        if self.proxies is None:
            targets, columns = directions, labels
        else:
            classes, centres = self.proxies.shape[:2]
            targets, columns = self.proxies.flatten(0, 1), torch.arange(classes).repeat_interleave(centres)
        cosines = directions @ targets.T
        values = self.gradient(cosines, labels)
        return SimilarityGradient(values, cosines, labels, columns, directions, targets)


def similarity_gradient(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> SimilarityGradient:
    """The gradient of any loss of this package for the cosines of a batch.

    Args:
        loss: as for :class:`CosineLoss`, which raises the errors.
        embeddings: ``(B, D)`` floating, of any length.
        labels: ``(B,)`` int64 class numbers.

    Example:
        >>> from polyanchor import MultiProxyAnchorLoss
        >>> gradient = similarity_gradient(MultiProxyAnchorLoss(3, 4), torch.eye(4)[:2], torch.tensor([0, 2]))
        >>> gradient.values.shape, gradient.by_class().shape
        (torch.Size([2, 30]), torch.Size([2, 3]))
    """
    return CosineLoss(loss).at(embeddings, labels)


def _distances(loss: PmlLoss) -> list[Any]:
    """The distances between items: of the loss and of its miner, not of a regulariser of the weights."""
    return [module.distance for module in (loss.loss, loss.miner) if module is not None]


def _check_distance(distance: Any) -> None:
    name = type(distance).__name__
    euclidean = name == "LpDistance" and distance.p == 2
    if name not in ("CosineSimilarity", "DotProductSimilarity") and not euclidean:
        raise InputError(f"the distance must be a cosine or Euclidean (LpDistance with p = 2), got {distance}")
    if not distance.normalize_embeddings:
        raise InputError(f"the distance must normalise the embeddings, or it is no function of cosines; got {distance}")


@contextmanager
def _distances_from(loss: PmlLoss, cosines: Tensor) -> Iterator[None]:
    """Within the context the distances of the loss are computed from these cosines, whatever the embeddings."""

    def answer(distance: Any, inputs: Any, output: Tensor) -> Tensor:
        if distance.is_inverted:
            return cosines.clone()  # the library writes into it
        gap = 2 - 2 * cosines
        if loss.proxies is None:
            gap = gap.masked_fill(torch.eye(len(gap), dtype=torch.bool), 0)
        # two items at one point have no direction between them: no gradient, as in torch.cdist
        return gap.clone() if distance.power == 2 else gap.clamp(min=1e-12) ** (distance.power / 2)

    handles = [distance.register_forward_hook(answer) for distance in _distances(loss)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Strength:
    """The pull and push that each of B items receives, times B.

    Attributes:
        pull: ``(B,)`` attraction, the sum of -dL/ds over the cosines of its own class, per unit of cosine. Negative
            where these repel (possible between items).
        push: ``(B,)`` repulsion, the sum of dL/ds over all others.
        norm: ``(B,)`` length of its gradient along the sphere, per radian.
        pull_norm: ``(B,)`` that of the pull alone.
        push_norm: ``(B,)`` that of the push alone.
    """

    pull: Tensor
    push: Tensor
    norm: Tensor
    pull_norm: Tensor
    push_norm: Tensor


def strength(gradient: SimilarityGradient) -> Strength:
    """The pull and push that each item of a batch receives.

    Example:
        >>> from polyanchor import MultiProxyAnchorLoss
        >>> x, y = torch.randn(5, 8), torch.tensor([0, 0, 1, 1, 2])
        >>> strength(similarity_gradient(MultiProxyAnchorLoss(3, 8), x, y)).pull.shape
        torch.Size([5])
    """
    items = len(gradient.values)
    pull, push = -gradient.of("pull").sum(dim=1), gradient.of("push").sum(dim=1)
    norms = (gradient.vectors(part).norm(dim=1) for part in ("all", "pull", "push"))
    return Strength(*(items * value for value in (pull, push, *norms)))


@dataclass(frozen=True)
class ClassStrength:
    """The pull and push that the M classes of a batch receive and exert, times B.

    Attributes:
        classes: ``(M,)`` class numbers, ascending.
        items: ``(M,)`` items of each.
        pull: ``(M,)`` mean attraction of its items, as :attr:`Strength.pull`.
        push: ``(M,)`` mean repulsion of its items.
        attracts: ``(M,)`` total attraction of its proxies (between items: its items) on its own items.
        repels: ``(M,)`` their total repulsion on the items of other classes.
    """

    classes: Tensor
    items: Tensor
    pull: Tensor
    push: Tensor
    attracts: Tensor
    repels: Tensor


def class_strength(gradient: SimilarityGradient) -> ClassStrength:
    """The pull and push that each class of a batch receives and exerts.

    Example:
        >>> from polyanchor import MultiProxyAnchorLoss
        >>> x, y = torch.randn(5, 8), torch.tensor([0, 0, 2, 2, 2])
        >>> class_strength(similarity_gradient(MultiProxyAnchorLoss(3, 8), x, y)).items
        tensor([2, 3])
    """
    each = strength(gradient)
    classes, which, counts = gradient.labels.unique(return_inverse=True, return_counts=True)
    pull, push = (part.new_zeros(len(classes)).index_add(0, which, part) / counts for part in (each.pull, each.push))
    attracts, repels = (len(which) * gradient.by_class(part).sum(dim=0)[classes] for part in ("pull", "push"))
    return ClassStrength(classes, counts, pull, push, -attracts, repels)


@dataclass(frozen=True)
class Concentration:
    """How evenly gradients are divided within a batch; NaN where there is nothing to divide.

    Attributes:
        pull_items: ``(M,)`` effective number of items that share the pull of each class in the batch.
        items: ``(M,)`` items of each class.
        push_classes: ``(B,)`` effective number of classes that push each item.
        others: ``(B,)`` number of classes that could.
    """

    pull_items: Tensor
    items: Tensor
    push_classes: Tensor
    others: Tensor


def concentration(gradient: SimilarityGradient) -> Concentration:
    r"""Effective numbers :math:`\exp(-\sum_m u_m \log u_m)` of the shares u of the pull and of the push.

    Shares are of the parts above 0: an item that its own class repels has no share of the pull.

    Example:
        >>> from polyanchor import MultiProxyAnchorLoss
        >>> x, y = torch.eye(4), torch.tensor([0, 0, 1, 1])
        >>> concentration(similarity_gradient(MultiProxyAnchorLoss(3, 4), x, y)).items
        tensor([2, 2])
    """
    pull = -gradient.of("pull").sum(dim=1)
    classes, counts = gradient.labels.unique(return_counts=True)
    of_class = torch.stack([_effective(pull[gradient.labels == number]) for number in classes])
    push = _effective(gradient.by_class("push"))
    return Concentration(of_class, counts, push, torch.full_like(push, len(gradient.columns.unique()) - 1))


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
    """Does an item lose its push as it nears its own class? From the loss itself, on a constructed batch.

    The batch has ``per_class`` items of each of ``classes`` classes (capped at those of the loss), all with the cosine
    ``own`` to each proxy of their class (between items: to each item of it) and ``other`` to all the rest. ``own``
    varies, ``other`` is constant.

    Args:
        loss: its options and numbers of classes and proxies count, the positions of its proxies do not.
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
    of_loss = classes if loss.proxies is None else loss.proxies.shape[0]
    labels = torch.arange(min(classes, of_loss)).repeat_interleave(per_class)
    columns = labels if loss.proxies is None else torch.arange(of_loss).repeat_interleave(loss.proxies.shape[1])
    same = labels[:, None] == columns
    pulls, pushes = [], []
    for value in own.tolist():
        cosines = torch.where(same, value, other).double()
        if loss.proxies is None:
            cosines.fill_diagonal_(1)
        values = loss.gradient(cosines, labels)
        pulls.append(-float(values[same].sum()))
        pushes.append(float(values[~same].sum()))
    return Curve(tuple(own.tolist()), tuple(pulls), tuple(pushes))


@dataclass(frozen=True)
class Reach:
    """How gradients change if one item moves, relative to the change of that item's own gradient.

    Attributes:
        own_class: mean change of another item of its class; NaN if there is none.
        other_classes: mean change of an item of another class; NaN if there is none.
        all_own_class: sum over all other items of its class.
        all_other_classes: sum over all items of other classes.
    """

    own_class: float
    other_classes: float
    all_own_class: float
    all_other_classes: float


def response(
    loss: CosineLoss, embeddings: Tensor, labels: Tensor, movers: Tensor, *, steps: int = 2, seed: int = 0
) -> dict[Part, Tensor]:
    r"""Change of each item's gradient per radian by which another item moves.

    .. math::
        R_{ij} = \operatorname{mean}_u \Bigl\lVert \Pi_i \frac{g_i(x_j \cos e + u \sin e) - g_i(x_j \cos e - u \sin e)}
            {2 \sin e} \Bigr\rVert

    with random unit tangents u at :math:`x_j`, :math:`e` = 1e-5 radian, and :math:`\Pi_i` the projection along the
    sphere at :math:`x_i`; float64. Entries of items that do not depend on each other are exactly 0.

    Args:
        loss: the loss.
        embeddings: ``(B, D)`` floating, of any length.
        labels: ``(B,)`` int64 class numbers.
        movers: ``(J,)`` int64, rows of the items that move, one at a time.
        steps: directions u for each mover.
        seed: of the directions.

    Returns:
        For ``"all"``, ``"pull"`` and ``"push"`` a ``(B, J)`` float64, of the whole gradient and of its two parts.

    Example:
        >>> from polyanchor import MultiProxyAnchorLoss
        >>> loss = CosineLoss(MultiProxyAnchorLoss(2, 4, anchor="data"))
        >>> found = response(loss, torch.randn(3, 4), torch.tensor([0, 0, 1]), torch.tensor([0]))
        >>> (found["all"][:, 0] > 0).tolist()
        [True, False, False]
    """
    _check.count("steps", steps)
    directions = unit_rows(embeddings.detach().cpu().double())
    generator = torch.Generator().manual_seed(seed)
    changes: dict[Part, Tensor] = {part: directions.new_zeros(len(directions), len(movers)) for part in get_args(Part)}
    for column, mover in enumerate(movers.tolist()):
        start = directions[mover]
        for _ in range(steps):
            drawn = torch.randn(start.shape, generator=generator, dtype=start.dtype)
            tangent = unit_rows(drawn - (drawn @ start) * start)
            ahead, back = (_moved(loss, directions, labels, mover, sign * STEP, tangent) for sign in (1, -1))
            for part, change in changes.items():
                turn = (ahead.vectors(part) - back.vectors(part)) / (2 * STEP)
                along = turn - (turn * directions).sum(dim=1, keepdim=True) * directions
                change[:, column] += along.norm(dim=1) / steps
    return changes


def _moved(
    loss: CosineLoss, directions: Tensor, labels: Tensor, mover: int, angle: float, tangent: Tensor
) -> SimilarityGradient:
    moved = directions.clone()
    turn = torch.tensor(angle, dtype=directions.dtype)
    moved[mover] = turn.cos() * directions[mover] + turn.sin() * tangent
    return loss.at(moved, labels)


def reach(changes: dict[Part, Tensor], labels: Tensor, movers: Tensor) -> dict[Part, Reach]:
    """Means of a :func:`response` over the movers, divided by the mean change of their own whole gradient.

    Args:
        changes: the response.
        labels: ``(B,)`` int64 class numbers, as for the response.
        movers: ``(J,)`` int64, as for the response.
    """
    columns = torch.arange(len(movers))
    own_change = changes["all"][movers, columns].mean()
    same = labels[:, None] == labels[movers]
    apart = ~same
    same[movers, columns] = False
    reached = {}
    for part, change in changes.items():
        near, far = change.masked_fill(~same, 0).sum(), change.masked_fill(~apart, 0).sum()
        numbers = near / same.sum(), far / apart.sum(), near / len(movers), far / len(movers)
        reached[part] = Reach(*(float(number / own_change) for number in numbers))
    return reached

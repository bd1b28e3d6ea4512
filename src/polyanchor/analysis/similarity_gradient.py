"""A loss as a function of cosines alone, and its gradient for each of them: what pulls and pushes every item.

Losses with proxies see an item through its cosines to the proxies, losses between items through those to the others of
the batch. :class:`CosineLoss` makes either a function of that matrix; autograd does the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from polyanchor._errors import InputError, InputTypeError
from polyanchor.functional import anchor_loss, pool, unit_rows
from polyanchor.losses.multi_proxy_anchor import MultiProxyAnchorLoss
from polyanchor.losses.pml import PmlLoss
from polyanchor.losses.proxies import proxies_of

Part = Literal["all", "pull", "push"]


@dataclass(frozen=True)
class SimilarityGradient:
    """The gradient of a loss for the cosines of a batch of B items with P proxies, or with the P = B items themselves.

    Attributes:
        values: ``(B, P)`` float64, dL/ds. Between items it is symmetric: the derivative for the cosine of the pair, of
            which there is one; its diagonal is 0.
        similarity: ``(B, P)`` float64, the cosines.
        labels: ``(B,)`` int64, class number of each row.
        columns: ``(P,)`` int64, class number of each column.
        directions: ``(B, D)`` float64, the items at length 1.
        targets: ``(P, D)`` float64, what the columns stand for, at length 1.
    """

    values: Tensor
    similarity: Tensor
    labels: Tensor
    columns: Tensor
    directions: Tensor
    targets: Tensor

    @property
    def own(self) -> Tensor:
        """``(B, P)`` bool: the column is of the item's own class. What pulls; the others push."""
        return self.labels[:, None] == self.columns

    def of(self, part: Part) -> Tensor:
        """``(B, P)`` the values of own classes (``"pull"``), of the others (``"push"``), or all; 0 elsewhere."""
        if part == "all":
            return self.values
        return self.values.masked_fill(~self.own if part == "pull" else self.own, 0)

    def by_class(self, part: Part = "all") -> Tensor:
        """``(B, C)`` values added up over the columns of each class; C is one more than the largest column class."""
        classes = int(self.columns.max()) + 1
        return self.values.new_zeros(len(self.values), classes).index_add(1, self.columns, self.of(part))

    def vectors(self, part: Part = "all") -> Tensor:
        r"""Gradient of the loss for the items at length 1, along the sphere.

        .. math:: g_i = \sum_p \frac{\partial L}{\partial s_{ip}} (t_p - s_{ip} \hat x_i)

        Args:
            part: of which cosines.

        Returns:
            ``(B, D)`` float64; times 1 / length it is what autograd gives an embedding of that length.
        """
        values = self.of(part)
        radial = (values * self.similarity).sum(dim=1, keepdim=True)
        return values @ self.targets - radial * self.directions


class CosineLoss:
    """A loss as a function of a matrix of cosines, in float64 on the CPU.

    A copy is taken; the loss itself is neither changed nor followed. What does not depend on the items (the merging of
    proxies) is left out of the family's loss and has no part in any gradient here.

    Args:
        loss: :class:`polyanchor.MultiProxyAnchorLoss`, or one from :func:`polyanchor.losses.pml.baseline`. The
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
                "loss must be a MultiProxyAnchorLoss or a PmlLoss (polyanchor.losses.pml.baseline makes it), "
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
        assert isinstance(loss, PmlLoss)  # the constructor saw to it
        size = 1 if self.proxies is None else self.proxies.shape[2]
        with _answering(loss, cosines):
            return loss(cosines.new_zeros(len(cosines), size), labels)

    def gradient(self, cosines: Tensor, labels: Tensor) -> Tensor:
        """Derivative for each cosine, in the shape of ``cosines``; between items symmetric with diagonal 0."""
        leaf = cosines.detach().clone().requires_grad_()
        loss = self(leaf, labels)
        if not loss.requires_grad:  # no pair was mined: the library answers with a constant
            return torch.zeros_like(cosines)
        (found,) = torch.autograd.grad(loss, leaf, allow_unused=True)
        values = torch.zeros_like(cosines) if found is None else found
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
        loss: see :class:`CosineLoss`, as for the errors.
        embeddings: ``(B, D)`` floating, of any length.
        labels: ``(B,)`` int64 class numbers.

    Example:
        >>> from polyanchor import MultiProxyAnchorLoss
        >>> found = similarity_gradient(MultiProxyAnchorLoss(3, 4), torch.eye(4)[:2], torch.tensor([0, 2]))
        >>> found.values.shape, found.by_class().shape
        (torch.Size([2, 30]), torch.Size([2, 3]))
    """
    return CosineLoss(loss).at(embeddings, labels)


def _distances(loss: PmlLoss) -> list[Any]:
    """The distance modules that items go through: of the loss and of its miner, not of a regulariser of the weights."""
    return [module.distance for module in (loss.loss, loss.miner) if module is not None]


def _check_distance(distance: Any) -> None:
    name = type(distance).__name__
    euclidean = name == "LpDistance" and distance.p == 2
    if name not in ("CosineSimilarity", "DotProductSimilarity") and not euclidean:
        raise InputError(f"the distance must be a cosine or Euclidean (LpDistance with p = 2), got {distance}")
    if not distance.normalize_embeddings:
        raise InputError(f"the distance must normalise the embeddings, or it is no function of cosines; got {distance}")


@contextmanager
def _answering(loss: PmlLoss, cosines: Tensor) -> Iterator[None]:
    """Inside, the distances of the loss are those of these cosines, whatever embeddings they are given."""

    def answer(distance: Any, inputs: Any, output: Tensor) -> Tensor:
        if distance.is_inverted:
            return cosines.clone()  # the library writes into it
        gap = 2 - 2 * cosines
        if loss.proxies is None:
            gap = gap.masked_fill(torch.eye(len(gap), dtype=torch.bool), 0)
        # an item at the place of another has no direction to it: no gradient, as torch.cdist has it
        return gap.clone() if distance.power == 2 else gap.clamp(min=1e-12) ** (distance.power / 2)

    handles = [distance.register_forward_hook(answer) for distance in _distances(loss)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

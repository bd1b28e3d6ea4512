"""Whose gradient changes when an item moves: its own alone (data-wise), or those of others too (class-wise)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor.analysis.similarity_gradient import CosineLoss, Part, SimilarityGradient
from polyanchor.functional import unit_rows

STEP = 1e-5
"""Angle in radians that an item is moved by, to either side."""


@dataclass(frozen=True)
class Reach:
    """How the gradients of a batch answer to a move of one item, relative to the answer of that item's own gradient.

    Attributes:
        own_class: of another item of its class, mean over these; NaN if there is none.
        other_classes: of an item of another class, mean over these; NaN if there is none.
        all_own_class: of all other items of its class, added up.
        all_other_classes: of all items of other classes, added up.
    """

    own_class: float
    other_classes: float
    all_own_class: float
    all_other_classes: float


def response(
    loss: CosineLoss, embeddings: Tensor, labels: Tensor, movers: Tensor, *, steps: int = 2, seed: int = 0
) -> dict[Part, Tensor]:
    r"""Change of each item's gradient per radian that another item moves.

    .. math::
        R_{ij} = \operatorname{mean}_u \Bigl\lVert \Pi_i \frac{g_i(x_j \cos e + u \sin e) - g_i(x_j \cos e - u \sin e)}
            {2 \sin e} \Bigr\rVert

    with random unit tangents u at :math:`x_j`, :math:`e` = 1e-5 radian, and :math:`\Pi_i` the projection along the
    sphere at :math:`x_i`; float64. Entries of items that do not depend on each other are exactly 0.

    Args:
        loss: any.
        embeddings: ``(B, D)`` floating, of any length.
        labels: ``(B,)`` int64 class numbers.
        movers: ``(J,)`` int64, rows of the items that move, one at a time.
        steps: directions u of each.
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
        here = directions[mover]
        for _ in range(steps):
            drawn = torch.randn(here.shape, generator=generator, dtype=here.dtype)
            tangent = unit_rows(drawn - (drawn @ here) * here)
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
    """Means of :func:`response` over the movers, divided by the mean answer of their own whole gradient.

    Args:
        changes: what :func:`response` gave.
        labels: what it was given.
        movers: likewise.
    """
    columns = torch.arange(len(movers))
    own_answer = changes["all"][movers, columns].mean()
    same = labels[:, None] == labels[movers]
    apart = ~same
    same[movers, columns] = False
    reached = {}
    for part, change in changes.items():
        near, far = change.masked_fill(~same, 0).sum(), change.masked_fill(~apart, 0).sum()
        numbers = near / same.sum(), far / apart.sum(), near / len(movers), far / len(movers)
        reached[part] = Reach(*(float(number / own_answer) for number in numbers))
    return reached

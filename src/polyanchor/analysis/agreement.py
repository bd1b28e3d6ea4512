"""Whether the local centres of a class follow its known sub-classes, beside what k-means and chance would reach."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polyanchor._extras import load

SHUFFLES = 20
"""Random assignments that the purity by chance is averaged over."""


@dataclass(frozen=True)
class Agreement:
    """How well a division of a class's items into centres follows the known sub-classes.

    Attributes:
        sub_classes: number of sub-classes, at least 2.
        ami: adjusted mutual information of nearest centre and sub-class: 1 for the same division, about 0 by chance.
        purity: share of items whose sub-class is the most frequent one of their centre.
        kmeans_ami: the same for k-means with as many centres on the same unit vectors.
        kmeans_purity: likewise.
        random_purity: purity of the nearest centres dealt out to the items at random, mean of 20 deals.
    """

    sub_classes: int
    ami: float
    purity: float
    kmeans_ami: float
    kmeans_purity: float
    random_purity: float


def purity(groups: Tensor, sub_classes: Tensor) -> float:
    """Share of items whose sub-class is the most frequent one of their group.

    Args:
        groups: ``(N,)`` int64, 0 or more, N at least 1.
        sub_classes: ``(N,)`` int64.

    Example:
        >>> purity(torch.tensor([0, 0, 0, 1]), torch.tensor([7, 7, 8, 8]))
        0.75
    """
    numbers = sub_classes.unique(return_inverse=True)[1]
    width = int(numbers.max()) + 1
    table = (groups * width + numbers).bincount(minlength=(int(groups.max()) + 1) * width).view(-1, width)
    return int(table.amax(dim=1).sum()) / len(groups)


def agreement(directions: Tensor, centre: Tensor, sub_classes: Tensor, centres: int, seed: int) -> Agreement | None:
    """Nearest centres of one class's items against its sub-classes; None if there are fewer than two of these.

    Args:
        directions: ``(n, D)`` unit vectors.
        centre: ``(n,)`` int64 in ``[0, centres)``.
        sub_classes: ``(n,)`` int64.
        centres: K, also of the k-means that it is compared with (n, if that is less).
        seed: of k-means and of the random assignments.
    """
    found = len(sub_classes.unique())
    if found < 2:
        return None
    ami = load("sklearn.metrics", "train").adjusted_mutual_info_score
    k_means = load("sklearn.cluster", "train").KMeans(min(centres, len(directions)), n_init=10, random_state=seed)
    clusters = torch.from_numpy(k_means.fit_predict(directions.double().numpy())).long()
    generator = torch.Generator().manual_seed(seed)
    dealt = [centre[torch.randperm(len(centre), generator=generator)] for _ in range(SHUFFLES)]
    return Agreement(
        sub_classes=found,
        ami=float(ami(sub_classes.numpy(), centre.numpy())),
        purity=purity(centre, sub_classes),
        kmeans_ami=float(ami(sub_classes.numpy(), clusters.numpy())),
        kmeans_purity=purity(clusters, sub_classes),
        random_purity=sum(purity(one, sub_classes) for one in dealt) / SHUFFLES,
    )

"""The local centres of classes: how many proxies are in use, which have merged, whether they follow known sub-classes.

The documentation's page on local centres explains how to read the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._optional import load
from polyanchor.functional import unit_rows
from polyanchor.types import Embeddings

SHUFFLES = 20
"""Random assignments over which the purity by chance is averaged."""


@dataclass(frozen=True)
class Agreement:
    """How well the division of a class's items among its centres follows the known sub-classes.

    Attributes:
        sub_classes: number of sub-classes, at least 2.
        ami: adjusted mutual information of nearest centre and sub-class: 1 for the same division, about 0 by chance.
        purity: share of items whose sub-class is the most frequent one of their centre.
        kmeans_ami: ``ami`` of k-means with as many centres on the same unit vectors.
        kmeans_purity: ``purity`` of that k-means.
        random_purity: purity of the nearest centres in random order, mean of 20 orders.
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
    """Compare the nearest centres of one class's items with its sub-classes.

    Args:
        directions: ``(n, D)`` unit vectors.
        centre: ``(n,)`` int64 in ``[0, centres)``.
        sub_classes: ``(n,)`` int64.
        centres: K, also of the k-means beside it (n, if that is less).
        seed: of k-means and of the random assignments.

    Returns:
        The agreement; None if there are fewer than two sub-classes.
    """
    number = len(sub_classes.unique())
    if number < 2:
        return None
    ami = load("sklearn.metrics", "train").adjusted_mutual_info_score
    k_means = load("sklearn.cluster", "train").KMeans(min(centres, len(directions)), n_init=10, random_state=seed)
    clusters = torch.from_numpy(k_means.fit_predict(directions.double().numpy())).long()
    generator = torch.Generator().manual_seed(seed)
    shuffled = [centre[torch.randperm(len(centre), generator=generator)] for _ in range(SHUFFLES)]
    return Agreement(
        sub_classes=number,
        ami=float(ami(sub_classes.numpy(), centre.numpy())),
        purity=purity(centre, sub_classes),
        kmeans_ami=float(ami(sub_classes.numpy(), clusters.numpy())),
        kmeans_purity=purity(clusters, sub_classes),
        random_purity=sum(purity(order, sub_classes) for order in shuffled) / SHUFFLES,
    )


@dataclass(frozen=True)
class ClassCentres:
    """The local centres of one class.

    Attributes:
        class_id: the data source's own.
        name: of the class, or its id.
        usage: K shares that sum to 1, the mean soft assignment of the class's items to each centre.
        counts: K, items of the class that are nearest to each centre.
        effective_soft: effective number of centres, exp of the entropy of ``usage``, in [1, K].
        effective_hard: the same of the shares of ``counts``.
        merged: groups of centres connected by cosines above the threshold; groups of one are left out.
        distinct: number of centres if a group counts as one.
        effective_distinct: as ``effective_hard``, if a group counts as one: which of two merged centres is nearer is
            chance, so this is the number of local centres that the items are divided among.
        spread: mean angle between two centres in degrees; NaN for K = 1.
        agreement: with the sub-classes; None where there are fewer than two.
    """

    class_id: int
    name: str
    usage: tuple[float, ...]
    counts: tuple[int, ...]
    effective_soft: float
    effective_hard: float
    merged: tuple[tuple[int, ...], ...]
    distinct: int
    effective_distinct: float
    spread: float
    agreement: Agreement | None

    @property
    def in_use(self) -> int:
        """Number of centres that are nearest to some item."""
        return sum(count > 0 for count in self.counts)


@dataclass(frozen=True)
class ProxyStudy:
    """The local centres of all classes that have items.

    Attributes:
        classes: in ascending order of their ids.
        means: name of a number of :class:`ClassCentres` or :class:`Agreement` -> mean over the classes that have it.
        centre: ``(N,)`` int64, nearest centre of each item within its own class.
        similarity: ``(N,)`` cosine to it.
    """

    classes: tuple[ClassCentres, ...]
    means: Mapping[str, float]
    centre: Tensor
    similarity: Tensor


def effective_number(shares: Tensor) -> Tensor:
    r"""The number of equal shares of the same entropy: :math:`\exp(-\sum_k u_k \log u_k)`, with 0 log 0 = 0.

    Args:
        shares: ``(..., K)`` floating, at least 0, summing to 1.

    Returns:
        ``(...)`` in [1, K].

    Example:
        >>> effective_number(torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]))
        tensor([2., 1.])
    """
    return torch.special.entr(shares).sum(dim=-1).exp()


def merged_groups(cosines: Tensor, above: float) -> tuple[tuple[int, ...], ...]:
    """Connected components of the graph that joins centres whose cosine is above a threshold, single ones included.

    Args:
        cosines: ``(K, K)`` symmetric.
        above: threshold.

    Example:
        >>> merged_groups(torch.tensor([[1.0, 0.1, 0.99], [0.1, 1.0, 0.2], [0.99, 0.2, 1.0]]), 0.95)
        ((0, 2), (1,))
    """
    components = load("scipy.sparse.csgraph", "train").connected_components
    count, component = components((cosines > above).numpy(), directed=False)
    return tuple(sorted(tuple((component == number).nonzero()[0].tolist()) for number in range(count)))


@torch.autocast("cpu", enabled=False)  # type: ignore[untyped-decorator]  # torch does not type it
def study_proxies(
    embeddings: Embeddings,
    proxies: Tensor,
    classes: Tensor,
    *,
    gamma: float = 0.1,
    merged_above: float = 0.95,
    seed: int = 0,
) -> ProxyStudy:
    r"""Describe the local centres of every class that has items.

    With :math:`s_{ik}` the cosine of item i and centre k of its own class, and n items in that class:

    .. math::
        w_{ik} = \operatorname{softmax}_k(s_{ik} / \gamma), \quad u_k = \frac{1}{n} \sum_i w_{ik}, \quad
        a_i = \arg\max_k s_{ik}

    Args:
        embeddings: ``(N, D)`` vectors of any length with class ids, on the CPU; each id must be in ``classes``.
        proxies: ``(C, K, D)`` of any length.
        classes: ``(C,)`` int64 ascending, the class ids that the proxies stand for.
        gamma: width of the soft assignment in cosine units, > 0.
        merged_above: two centres of a cosine above this are merged.
        seed: of the baselines of :class:`Agreement`.

    Raises:
        ValueError: an item's class has no proxies, or shapes do not fit together.

    Example:
        >>> embeddings = Embeddings(torch.eye(4), torch.tensor([3, 3, 3, 3]))
        >>> study_proxies(embeddings, torch.eye(4)[None, :2], torch.tensor([3])).classes[0].counts
        (3, 1)
    """
    _check.positive("gamma", gamma)
    _check_fit(embeddings, proxies, classes)
    directions, poles = unit_rows(embeddings.vectors.float()), unit_rows(proxies.detach().cpu().float())
    centre = torch.zeros(len(directions), dtype=torch.int64)
    similarity, studied = torch.zeros(len(directions)), []
    for class_id, rows in _rows_by_class(embeddings.labels):
        pole = poles[int(torch.searchsorted(classes, class_id))]  # (K, D)
        own = directions[rows] @ pole.T  # (n, K)
        similarity[rows], centre[rows] = own.max(dim=1)
        counts = centre[rows].bincount(minlength=len(pole))
        shares = counts.double() / len(rows)
        usage = torch.softmax(own.double() / gamma, dim=1).mean(dim=0)
        cosines = pole @ pole.T
        pairs = cosines[tuple(torch.triu_indices(len(pole), len(pole), offset=1))]
        groups, sub = merged_groups(cosines, merged_above), embeddings.sublabels
        agrees = None if sub is None else agreement(directions[rows], centre[rows], sub[rows], len(pole), seed)
        studied.append(
            ClassCentres(
                class_id=class_id,
                name=embeddings.class_names.get(class_id, str(class_id)),
                usage=tuple(usage.tolist()),
                counts=tuple(counts.tolist()),
                effective_soft=float(effective_number(usage)),
                effective_hard=float(effective_number(shares)),
                merged=tuple(group for group in groups if len(group) > 1),
                distinct=len(groups),
                effective_distinct=float(effective_number(torch.stack([shares[[*group]].sum() for group in groups]))),
                spread=float(pairs.double().clamp(-1, 1).arccos().rad2deg().mean()),
                agreement=agrees,
            )
        )
    return ProxyStudy(tuple(studied), _means(studied), centre, similarity)


def _check_fit(embeddings: Embeddings, proxies: Tensor, classes: Tensor) -> None:
    _check.loss_inputs(embeddings.vectors, proxies.detach().cpu(), embeddings.labels)
    without = embeddings.labels[~torch.isin(embeddings.labels, classes)].unique()
    if len(without):
        raise InputError(
            f"each item must be of a class that has proxies, got items of the classes {without[:5].tolist()}, which "
            "have none; a zero-shot split's test classes never do"
        )


def _rows_by_class(labels: Tensor) -> Iterator[tuple[int, Tensor]]:
    class_ids, counts = labels.unique(return_counts=True)
    yield from zip(class_ids.tolist(), labels.argsort(stable=True).split(counts.tolist()), strict=True)


def _means(studied: list[ClassCentres]) -> dict[str, float]:
    lists: dict[str, list[float]] = {}
    for centres in studied:
        for name in ("in_use", "effective_soft", "effective_hard", "distinct", "effective_distinct", "spread"):
            lists.setdefault(name, []).append(getattr(centres, name))
        for name, value in vars(centres.agreement).items() if centres.agreement else ():
            lists.setdefault(name, []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in lists.items()}

"""The map: which items and proxies it shows, and where; the local centres of the classes that trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyanchor._optional import load
from polyanchor.analysis.proxies import ClassCentres, study_proxies
from polyanchor.analysis.proxy_report import extremes, nearest_rows
from polyanchor.functional import unit_rows
from polyanchor.report.data import ReportData
from polyanchor.runs.embed_parts import Rows
from polyanchor.training.callbacks import spread
from polyanchor.viz.scatter import principal_axes

PROXIES = 2_000
"""Proxies that are drawn at most."""
NEAREST = 8
"""Items that are shown for a centre."""
_COMPONENTS = 50  # principal components for t-SNE: its usual number, and half of the time of all dimensions
_PERPLEXITY, _STEPS = 30.0, 500
_FEWEST = 5


@dataclass(frozen=True)
class Layer:
    """Points of one kind.

    Attributes:
        kind: ``"query"``, ``"gallery"``, ``"training"`` or ``"proxy"``.
        labels: ``(n,)`` int64, their classes.
        vectors: ``(n, D)`` unit vectors.
        source: the items; None for proxies.
        rows: ``(n,)`` row numbers in ``source``; for proxies the number of the centre within its class.
        total: number of points of the kind, shown or not.
    """

    kind: str
    labels: Tensor
    vectors: Tensor
    source: Rows | None
    rows: Tensor
    total: int


@dataclass(frozen=True)
class View:
    """A projection of all points.

    Attributes:
        name: of the method.
        about: how to read it.
        places: ``(N, 2)`` float64 coordinates, one layer after the other.
    """

    name: str
    about: str
    places: Tensor


def layers(data: ReportData, *, points: int) -> list[Layer]:
    """The items, ``points`` at most, and the proxies to draw.

    Queries come first; a gallery gets as many points as the queries, and training items a quarter of all, or what is
    left. Where items must be left out, each class keeps one as far as the points go, and then its share. Proxies come
    in addition, :data:`PROXIES` at most.
    """
    training = data.training if data.split != "train" else None
    drawn, gallery = [], data.gallery
    free = points - len(data.queries.items) - (0 if gallery is None else len(gallery.items))
    for_training = 0 if training is None else min(len(training.items), max(points // 4, free))
    rest = points - for_training
    if gallery is None:
        drawn.append(_sample("query", data.queries, rest))
    else:
        half = min(len(data.queries.items), max(rest // 2, rest - len(gallery.items)))
        drawn += [_sample("query", data.queries, half), _sample("gallery", gallery, rest - half)]
    if training is not None and for_training:
        drawn.append(_sample("training", training, for_training))
    if data.proxies is not None:
        drawn.append(_proxies(data.proxies, data.trained.classes))
    return drawn


def _sample(kind: str, rows: Rows, most: int) -> Layer:
    """One item of each class, and every n-th of the others in the order of their classes."""
    labels = rows.embeddings.labels
    order = labels.argsort(stable=True)
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = labels[order].diff() != 0
    firsts = spread(order[first], most)
    chosen = torch.cat([firsts, spread(order[~first], most - len(firsts))]).sort().values
    return Layer(kind, labels[chosen], unit_rows(rows.embeddings.vectors[chosen]), rows, chosen, len(labels))


def _proxies(proxies: Tensor, classes: Tensor) -> Layer:
    count, centres, _ = proxies.shape
    chosen = spread(torch.arange(count), max(1, PROXIES // centres))
    numbers = torch.arange(centres).repeat(len(chosen))
    vectors = unit_rows(proxies[chosen].flatten(0, 1).float())
    return Layer("proxy", classes[chosen].repeat_interleave(centres), vectors, None, numbers, count * centres)


def views(drawn: list[Layer], *, tsne: bool) -> list[View]:
    """Project items and proxies together into the plane: by t-SNE, if there are points enough, and to principal axes.

    t-SNE takes half a minute for ten thousand points.
    """
    vectors = torch.cat([layer.vectors for layer in drawn]).double()
    if vectors.shape[1] == 1:  # a plane needs two
        vectors = torch.cat([vectors, torch.zeros_like(vectors)], dim=1)
    mean, axes, share = principal_axes(vectors)
    flat = (vectors - mean) @ axes
    if flat.shape[1] < 2:  # one point has no axes
        flat = torch.zeros(len(vectors), 2, dtype=torch.float64)
    about = (
        f"The first two principal axes of items and proxies together: {share:.0%} of the variance. Directions and "
        "distances mean what they say, in these two of them."
    )
    principal = View("principal axes", about, flat)
    if not tsne or len(vectors) < _FEWEST:
        return [principal]
    about = (
        f"t-SNE (perplexity {_perplexity(len(vectors)):g}) of items and proxies together. Neighbours are neighbours; "
        "the size of a group and the distance between two of them mean nothing."
    )
    return [View("t-SNE", about, _tsne(vectors)), principal]


def _perplexity(count: int) -> float:
    return min(_PERPLEXITY, (count - 1) / 3)


@torch.autocast("cpu", enabled=False)  # type: ignore[untyped-decorator]  # torch does not type it
def _tsne(vectors: Tensor) -> Tensor:
    values = (vectors - vectors.mean(dim=0)).float()
    if min(values.shape) > _COMPONENTS:
        _, _, axes = torch.linalg.svd(values, full_matrices=False)
        values = values @ axes[:_COMPONENTS].T
    method = load("sklearn.manifold", "train").TSNE(
        init="pca" if min(values.shape) > 1 else "random",
        perplexity=_perplexity(len(values)),
        max_iter=_STEPS,
        random_state=0,
        n_jobs=torch.get_num_threads(),
    )
    return torch.from_numpy(method.fit_transform(values.numpy())).double()


@dataclass(frozen=True)
class Centres:
    """The local centres of the classes that trained.

    Attributes:
        means: over all of them, see :class:`polyanchor.analysis.proxies.ProxyStudy`.
        classes: their number.
        shown: those that the page shows.
        rows: class id -> centre -> rows of the training items nearest to it, nearest first.
    """

    means: Mapping[str, float]
    classes: int
    shown: tuple[ClassCentres, ...]
    rows: Mapping[int, Mapping[int, Sequence[int]]]


def study_centres(data: ReportData, *, chosen: Sequence[int], classes: int) -> Centres | None:
    """Study the proxies; None for a loss without proxies, or without training items.

    Shown are those of the ``chosen`` class ids that trained; if there are none, ``classes`` of all: half whose items
    are divided among the most centres, half among the fewest.
    """
    proxies, training = data.proxies, data.training
    if proxies is None or training is None:
        return None
    gamma = float(getattr(data.trained.config.loss, "gamma", 0.1))
    study = study_proxies(training.embeddings, proxies, data.trained.classes, gamma=gamma)
    shown = [centres for centres in study.classes if centres.class_id in chosen] or extremes(study.classes, classes)
    rows = {centres.class_id: nearest_rows(study, training.items, centres, NEAREST) for centres in shown}
    return Centres(study.means, len(study.classes), tuple(shown), rows)

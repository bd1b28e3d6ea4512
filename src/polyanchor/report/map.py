"""What the map shows: which items and proxies, and where in the plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyanchor._optional import load
from polyanchor.analysis.proxies import ClassCentres, study_proxies
from polyanchor.analysis.proxy_report import nearest_rows
from polyanchor.functional import unit_rows
from polyanchor.report.data import ReportData
from polyanchor.runs.embed_parts import Rows
from polyanchor.training.callbacks import spread
from polyanchor.viz.scatter import principal_axes

PROXIES = 2_000
"""Proxies that are drawn at most."""
_COMPONENTS = 50  # what t-SNE is given: its usual number, and half of the time of all dimensions
_PERPLEXITY, _STEPS = 30.0, 500
_FEWEST = 5


@dataclass(frozen=True)
class Layer:
    """Points of one kind.

    Attributes:
        kind: ``"query"``, ``"gallery"``, ``"training"`` or ``"proxy"``.
        labels: ``(n,)`` int64, their classes.
        vectors: ``(n, D)`` unit vectors.
        source: where the items are; None for proxies.
        rows: ``(n,)`` row numbers in the source; of proxies, the number of the centre within its class.
        total: how many there are, shown or not.
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
        about: what to know when looking at it.
        places: ``(N, 2)`` float64, of all layers one after the other.
    """

    name: str
    about: str
    places: Tensor


def layers(opened: ReportData, *, points: int) -> list[Layer]:
    """The items and proxies to draw.

    Queries come first; a gallery has as many places as the queries, and training items have a quarter of all, or
    what is left. Where there are more than places, each class gives one as far as they go, and then its share. Proxies
    come in addition, :data:`PROXIES` at most.

    Args:
        opened: the run.
        points: items, at most.
    """
    training = opened.training if opened.split != "train" else None
    found, gallery = [], opened.gallery
    free = points - len(opened.queries.items) - (0 if gallery is None else len(gallery.items))
    aside = 0 if training is None else min(len(training.items), max(points // 4, free))
    both = points - aside
    if gallery is None:
        found.append(_some("query", opened.queries, both))
    else:
        halves = min(len(opened.queries.items), max(both // 2, both - len(gallery.items)))
        found += [_some("query", opened.queries, halves), _some("gallery", gallery, both - halves)]
    if training is not None and aside:
        found.append(_some("training", training, aside))
    proxies = opened.proxies
    if proxies is not None:
        found.append(_proxies(proxies, opened.trained.classes))
    return found


def _some(kind: str, rows: Rows, most: int) -> Layer:
    """An even choice: one of each class, and of the others ordered by class every n-th."""
    labels = rows.embeddings.labels
    order = labels.argsort(stable=True)
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = labels[order].diff() != 0
    ones = spread(order[first], most)
    chosen = torch.cat([ones, spread(order[~first], most - len(ones))]).sort().values
    return Layer(kind, labels[chosen], unit_rows(rows.embeddings.vectors[chosen]), rows, chosen, len(labels))


def _proxies(proxies: Tensor, classes: Tensor) -> Layer:
    count, centres, _ = proxies.shape
    chosen = spread(torch.arange(count), max(1, PROXIES // centres))
    numbers = torch.arange(centres).repeat(len(chosen))
    vectors = unit_rows(proxies[chosen].flatten(0, 1).float())
    return Layer("proxy", classes[chosen].repeat_interleave(centres), vectors, None, numbers, count * centres)


def views(found: list[Layer], *, tsne: bool) -> list[View]:
    """Project everything, items and proxies together.

    Args:
        found: layers of N points in all.
        tsne: whether t-SNE is computed; half a minute for ten thousand points.

    Returns:
        t-SNE, unless it was not asked for or there are too few points, and the principal axes.
    """
    vectors = torch.cat([layer.vectors for layer in found]).double()
    if vectors.shape[1] == 1:  # a plane needs two
        vectors = torch.cat([vectors, torch.zeros_like(vectors)], dim=1)
    mean, axes, share = principal_axes(vectors)
    flat = (vectors - mean) @ axes
    if flat.shape[1] < 2:  # one point has no axes
        flat = torch.zeros(len(vectors), 2, dtype=torch.float64)
    said = f"The first two principal axes of items and proxies together: {share:.0%} of the variance."
    principal = View(
        "principal axes", f"{said} Directions and distances mean what they say, in these two of them.", flat
    )
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


NEAREST = 8
"""Items that are shown for a centre."""


@dataclass(frozen=True)
class Centres:
    """What the proxies of the training classes hold.

    Attributes:
        means: over all training classes, see :class:`polyanchor.analysis.proxies.ProxyStudy`.
        classes: how many those are.
        shown: the classes looked at.
        rows: class id -> centre -> rows of the training items nearest to it, nearest first.
        gamma: width of the soft assignment.
    """

    means: Mapping[str, float]
    classes: int
    shown: tuple[ClassCentres, ...]
    rows: Mapping[int, Mapping[int, Sequence[int]]]
    gamma: float


def study_centres(opened: ReportData, *, chosen: Sequence[int], classes: int) -> Centres | None:
    """Study the proxies; None for a loss without proxies, or if training items were not opened.

    Args:
        opened: the run.
        chosen: class ids to show; those that did not train are left out.
        classes: if none of the chosen ones trained, so many are shown: half with items divided among the most centres,
            half among the fewest.
    """
    proxies, training = opened.proxies, opened.training
    if proxies is None or training is None:
        return None
    gamma = float(getattr(opened.trained.config.loss, "gamma", 0.1))
    study = study_proxies(training.embeddings, proxies, opened.trained.classes, gamma=gamma)
    named = [one for one in study.classes if one.class_id in chosen]
    if not named:
        ranked = sorted(study.classes, key=lambda one: -one.effective_distinct)
        most = min(classes, len(ranked))
        named = ranked[: most - most // 2] + ranked[len(ranked) - most // 2 :]
    rows = {one.class_id: nearest_rows(study, training.items, one, NEAREST) for one in named}
    return Centres(study.means, len(study.classes), tuple(named), rows, gamma)

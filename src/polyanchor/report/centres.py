"""The local centres of some training classes, with the items nearest to each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from polyanchor.analysis.contact_sheet import nearest_rows
from polyanchor.analysis.proxies import ClassCentres, study_proxies
from polyanchor.report.opening import Opened

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


def study_centres(opened: Opened, *, chosen: Sequence[int], classes: int) -> Centres | None:
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

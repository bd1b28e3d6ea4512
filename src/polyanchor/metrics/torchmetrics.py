"""The retrieval report as a torchmetrics metric, for other training loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._optional import load
from polyanchor.metrics.retrieval import cutoffs, evaluate_retrieval

if TYPE_CHECKING:
    from torchmetrics import Metric
else:
    Metric = load("torchmetrics", "train").Metric

gather_all_tensors = load("torchmetrics.utilities.distributed", "train").gather_all_tensors

_ALWAYS = ("mrr", "r_precision", "map@r")


class RetrievalMetrics(Metric):
    """Leave-one-out retrieval over all items of all updates, see :func:`polyanchor.evaluate_retrieval`.

    ``compute`` searches each item among all others of all batches and processes. ``forward`` returns the
    metrics of its batch alone, whose smaller gallery usually gives larger numbers: use ``update`` in a loop.
    Where there are too few items for a cut-off, as in a sanity check before training, its values are NaN
    rather than an error; a single item gives NaN throughout.

    Several processes share one gallery; a process may have no items. ``DistributedSampler`` pads the last round
    with copies of items, which would find each other at rank 1. Pass ``update`` the ``ids`` of the items: each
    then counts once, and the numbers do not depend on the number of processes. (Or use a sampler that repeats
    nothing.)

    Args:
        k: cut-offs of recall, precision and nDCG: an int or several.
        gains: ``(C, C)`` class-to-class gains of nDCG, or None.
        measure: name of one metric, such as ``"map@r"``, for the wrappers of torchmetrics (``MetricTracker``,
            ``MinMaxMetric``): ``compute`` then gives its value alone; None gives all. (``BootStrapper`` draws items
            twice, which find each other: use :func:`polyanchor.stats.bootstrap_interval`. ``Running`` empties the
            lists of its metrics.)
        **options: of ``torchmetrics.Metric``.

    Raises:
        MissingExtraError: on import, if torchmetrics is not installed.
        TypeError: k is not ints, or what ``update`` is given not floating vectors and integer labels.
        ValueError: a cut-off is below 1, there is no such measure, shapes do not fit, ids were given in some updates
            only, or one id came with two labels.

    Example:
        >>> metric = RetrievalMetrics(k=1)
        >>> metric.update(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([4, 8]))
        >>> metric.update(torch.tensor([[1.0, 0.1], [0.1, 1.0]]), torch.tensor([4, 8]))
        >>> metric.compute()["recall@1"]
        tensor(1., dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    embeddings: list[Tensor]
    labels: list[Tensor]
    ids: list[Tensor]
    gains: Tensor | None

    def __init__(
        self,
        k: int | Sequence[int] = (1, 2, 4, 8),
        *,
        gains: Tensor | None = None,
        measure: str | None = None,
        **options: object,
    ) -> None:
        super().__init__(**options)
        self.k = cutoffs(k)
        self.names = (*(f"{name}@{k}" for k in self.k for name in ("recall", "precision", "ndcg")), *_ALWAYS)
        if measure is not None:
            _check.one_of("measure", measure, self.names)
        self.measure = measure
        self.register_buffer("gains", gains, persistent=False)
        self.add_state("embeddings", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")
        self.add_state("ids", default=[], dist_reduce_fx="cat")

    def update(self, embeddings: Tensor, labels: Tensor, ids: Tensor | None = None) -> None:
        """Keep a batch.

        Args:
            embeddings: ``(B, D)`` floating, kept as float32 or wider.
            labels: ``(B,)`` integer.
            ids: ``(B,)`` integer, the items' row numbers in the data set; in every update or in none. Repeated items
                are left out, and equal similarities are ranked in order of the ids.
        """
        _check.vectors("embeddings", embeddings)
        numbers = _check.integer_labels("labels", labels, len(embeddings))
        if ids is not None:
            self.ids.append(_check.integer_labels("ids", ids, len(embeddings)).detach())
        vectors = embeddings.detach()
        self.embeddings.append(vectors if vectors.dtype == torch.float64 else vectors.float())
        self.labels.append(numbers.detach())

    def compute(self) -> dict[str, Tensor] | Tensor:
        """Measure name -> ``()`` float64 mean over the queries where it is defined, NaN if there is none.

        With ``measure`` the ``()`` value of that metric alone.
        """
        embeddings, labels, ids = (self._joined(name) for name in ("embeddings", "labels", "ids"))
        if len(labels) == 0:
            raise InputError(
                "compute() needs at least one update() before it, got none; call update(embeddings, labels)"
            )
        if len(ids):
            rows = _each_once(ids, labels)
            embeddings, labels = embeddings[rows], labels[rows]
        others = len(labels) - 1
        means = dict.fromkeys(self.names, float("nan"))
        if others:
            fitting = [k for k in self.k if k <= others] or [1]
            report = evaluate_retrieval(embeddings, labels, k=fitting, gains=self.gains)
            means.update((name, value) for name, value in report.means.items() if name in means)
        values = {name: torch.tensor(value, dtype=torch.float64) for name, value in means.items()}
        return values if self.measure is None else values[self.measure]

    def _sync_dist(
        self, dist_sync_fn: Callable[..., list[Tensor]] = gather_all_tensors, process_group: Any | None = None
    ) -> None:
        """Gather, after agreeing on width and dtype of the states across processes.

        For a process without a batch torchmetrics would use an empty float32 vector, which makes the labels
        floating, and which a real backend does not gather with matrices.
        """
        vectors, labels, ids = (self._joined(name) for name in ("embeddings", "labels", "ids"))
        form = torch.tensor([vectors.shape[1], vectors.dtype == torch.float64], device=vectors.device)
        forms = torch.stack(dist_sync_fn(form, group=process_group or self.process_group))  # (processes, 2)
        width, wide = forms.amax(dim=0).tolist()
        if not ((forms[:, 0] == width) | (forms[:, 0] == 0)).all():
            raise InputError(
                f"embeddings must have the same width in every process, got {forms[:, 0].tolist()}; "
                "embed with one model everywhere"
            )
        if len(vectors) == 0:
            vectors = vectors.new_empty(0, width)
        self.embeddings = [vectors.to(torch.float64 if wide else torch.float32)]
        self.labels, self.ids = [labels], [ids]
        super()._sync_dist(dist_sync_fn, process_group)

    def _joined(self, name: str) -> Tensor:
        """A state as one tensor: it is a list before the processes synchronise, a tensor after."""
        state: Tensor | list[Tensor] = getattr(self, name)
        if isinstance(state, Tensor):
            return state
        if state:
            return torch.cat(state)
        if name == "embeddings":
            return torch.empty(0, 0, device=self.device)
        return torch.empty(0, dtype=torch.long, device=self.device)


def _each_once(ids: Tensor, labels: Tensor) -> Tensor:
    """First row of each id, in order of the ids: ``(distinct ids,)`` int64."""
    if len(ids) != len(labels):
        raise InputError(
            f"ids must be given in every update or in none, got {len(ids)} ids of {len(labels)} items; pass the row "
            "numbers of the data set each time"
        )
    order = ids.argsort(stable=True)
    ids, labels = ids[order], labels[order]
    again = torch.zeros_like(ids, dtype=torch.bool)
    again[1:] = ids[1:] == ids[:-1]
    wrong = (again[1:] & (labels[1:] != labels[:-1])).nonzero()
    if len(wrong):
        at = int(wrong[0])
        raise InputError(
            f"ids must be row numbers of the data set, got id {int(ids[at])} with the labels "
            f"{int(labels[at])} and {int(labels[at + 1])}; count over the data set, not within the batch or the process"
        )
    return order[~again]

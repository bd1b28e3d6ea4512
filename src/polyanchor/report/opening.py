"""A finished run with everything that its page is made of: vectors, measures, neighbours, what the run wrote down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from polyanchor import _check
from polyanchor.evaluation.evaluate import evaluate_embeddings, left_out
from polyanchor.explore.rows import Rows, embed_parts
from polyanchor.losses.proxies import proxies_of
from polyanchor.search.exact import search, search_others
from polyanchor.training.device import device_of
from polyanchor.training.reuse import part_of
from polyanchor.training.run_folder import RunFolder
from polyanchor.training.trained import Trained, open_trained
from polyanchor.types import Neighbours, RetrievalReport

PARTS = ("test", "validation", "train")
SHOWN = 8
"""Neighbours that a gallery shows at most."""
_AGREES = 1e-3


@dataclass(frozen=True)
class Opened:
    """A run, measured again.

    Attributes:
        run: its folder.
        trained: configuration, model, loss, data.
        part: what was measured, one of :data:`PARTS`.
        queries: its items.
        gallery: what they were searched in; None: the queries themselves, each without itself.
        training: items of the classes that trained; None if they were not asked for.
        report: the measures, with the notes of the data.
        neighbours: ``(Q, k)`` rows of the gallery, best first; at most :data:`SHOWN`.
        results: what ``results.json`` holds.
        notes: what the reader of the page has to know.
    """

    run: Path
    trained: Trained
    part: str
    queries: Rows
    gallery: Rows | None
    training: Rows | None
    report: RetrievalReport
    neighbours: Neighbours
    results: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def k(self) -> int:
        """The cut-off of the nDCG that classes and queries are ranked by: the largest."""
        return int(max(self.trained.config.run.k))

    @property
    def ndcg(self) -> Tensor:
        """``(Q,)`` float64, NaN where undefined."""
        return self.report.per_query[f"ndcg@{self.k}"]

    @property
    def searched(self) -> Rows:
        """What the neighbours are rows of."""
        return self.gallery or self.queries

    @property
    def proxies(self) -> Tensor | None:
        """``(C, K, D)`` on the CPU; None if the loss has none."""
        found = proxies_of(self.trained.loss)
        return None if found is None else found.detach().cpu()

    def class_name(self, number: int) -> str:
        """Of a class of any part; its number where it has no name."""
        for rows in (self.queries, self.gallery, self.training):
            if rows is not None and number in rows.items.class_names:
                return rows.items.class_names[number]
        return self.trained.parts.split.train.class_names.get(number, str(number))


def open_run(run: Path, *, part: str = "test", settings: tuple[str, ...] = (), training: bool = True) -> Opened:
    """Open a finished run, embed what its page shows and measure.

    Args:
        run: its folder.
        part: whose items are the queries, one of :data:`PARTS`.
        settings: changes to its ``data``, ``images``, ``batches`` and ``run`` keys.
        training: whether the items of the training classes are embedded too.

    Raises:
        FileNotFoundError: no run, or one that is not finished.
        ValueError: a part that the run does not have, or results that cannot be read.
    """
    _check.one_of("part", part, PARTS)
    results = read_results(run)
    trained = open_trained(run, settings)
    part_of(trained.parts, part)  # says so if there is none
    wanted = [part, *(["gallery"] if part == "test" else []), *(["train"] if training else [])]
    found, skipped = embed_parts(trained, wanted)
    queries, gallery = found[part], found.get("gallery")
    k, device = trained.config.run.k, device_of(trained.config)
    searched = None if gallery is None else gallery.embeddings
    report = evaluate_embeddings(queries.embeddings, searched, k=k, device=device)
    shown = min(SHOWN, report.gallery)
    if searched is None:
        near = search_others(queries.embeddings.vectors, shown)
    else:
        near = search(queries.embeddings.vectors, searched.vectors, shown)
    notes = list(results["test"]["notes"]) if part == "test" else list(trained.parts.split.notes)
    notes += [] if part == "test" else [f"the queries are the {part} classes, not the test classes"]
    notes += [left_out(skipped)] if skipped else []
    notes += _disagreement(RunFolder(run), report) if part == "test" else []
    known = found.get("train")
    return Opened(run, trained, part, queries, gallery, known, report, near, results, tuple(dict.fromkeys(notes)))


def read_results(run: Path) -> dict[str, Any]:
    """What ``results.json`` of a run holds.

    Raises:
        FileNotFoundError: no run, or one without results.
        ValueError: the file is not what a run writes.
    """
    folder = RunFolder(run)
    if not folder.config.is_file():
        raise FileNotFoundError(f"{run} is not a run: it has no {folder.config.name}")
    return folder.read_results()


def _disagreement(folder: RunFolder, report: RetrievalReport) -> list[str]:
    """A note if the run's own values of each query are not found again."""
    if not folder.per_query.is_file():  # runs of former versions have none
        return []
    before = folder.read_per_query()
    for name, values in report.per_query.items():
        if name not in before:  # another --set run.k
            continue
        if before[name].shape != values.shape:
            return [
                f"the run measured {len(before[name]):,} queries and this page {len(values):,}: the data has changed"
            ]
        moved = float((before[name].nanmean() - values.nanmean()).abs())
        if moved > _AGREES:
            return [
                f"the run's own {name} differs by {moved:.4f} from what is measured here: data, settings or versions "
                "have changed"
            ]
    return []


def defined(values: Tensor) -> Tensor:
    """Rows whose value is not NaN.

    Example:
        >>> import torch
        >>> defined(torch.tensor([0.5, float("nan"), 1.0])).tolist()
        [0, 2]
    """
    return (~values.isnan()).nonzero()[:, 0]

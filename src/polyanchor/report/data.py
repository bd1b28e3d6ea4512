"""The data of a report page: a finished run, embedded and measured again, and its facts in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor.config.builders import device_of
from polyanchor.runs.before import compared_to_before
from polyanchor.runs.embed_parts import Rows, embed_parts
from polyanchor.runs.evaluate import evaluate_embeddings, left_out
from polyanchor.runs.folder import RunFolder
from polyanchor.runs.load import Trained, open_trained, part_of
from polyanchor.search.exact import search, search_others
from polyanchor.types import Neighbours, RetrievalReport

PARTS = ("test", "validation", "train")
SHOWN = 8
"""Neighbours that a gallery shows at most."""
_AGREES = 1e-3  # of a mean: larger differences to the run's own are noted
PAPER = "https://arxiv.org/abs/2110.03997"
_FAMILY = "multi-proxy-anchor"


@dataclass(frozen=True)
class ReportData:
    """A run, measured again.

    Attributes:
        run: its folder.
        trained: configuration, model, loss, data.
        split: the part whose items are the queries, one of :data:`PARTS`.
        queries: its items.
        gallery: the items searched; None: the queries themselves, each without itself.
        training: items of the classes that trained; None if they were not embedded.
        report: the measures, with the notes of the data.
        neighbours: ``(Q, k)`` rows of the gallery, best first; at most :data:`SHOWN`.
        results: the content of ``results.json``.
        notes: for the reader of the page.
    """

    run: Path
    trained: Trained
    split: str
    queries: Rows
    gallery: Rows | None
    training: Rows | None
    report: RetrievalReport
    neighbours: Neighbours
    results: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def k(self) -> int:
        """The largest cut-off; classes and queries are ranked by nDCG@k."""
        return int(max(self.trained.config.run.k))

    @property
    def ndcg(self) -> Tensor:
        """``(Q,)`` float64, NaN where undefined."""
        return self.report.per_query[f"ndcg@{self.k}"]

    @property
    def searched(self) -> Rows:
        """The items that :attr:`neighbours` are rows of."""
        return self.gallery or self.queries

    @property
    def proxies(self) -> Tensor | None:
        """``(C, K, D)`` on the CPU; None if the loss has none."""
        proxies = self.trained.proxies
        return None if proxies is None else proxies.cpu()

    def class_name(self, class_id: int) -> str:
        """Name of a class of any part; its id where it has no name."""
        for rows in (self.queries, self.gallery, self.training):
            if rows is not None and class_id in rows.items.class_names:
                return rows.items.class_names[class_id]
        return self.trained.parts.split.train.class_names.get(class_id, str(class_id))


def open_run(run: Path, *, split: str = "test", settings: tuple[str, ...] = (), training: bool = True) -> ReportData:
    """Open a finished run, embed the items that its page shows, and measure.

    Args:
        run: its folder.
        split: the part whose items are the queries, one of :data:`PARTS`.
        settings: changes to its ``data``, ``images``, ``batches`` and ``run`` keys.
        training: whether to embed the items of the training classes too.

    Raises:
        FileNotFoundError: no run, or one that is not finished.
        ValueError: a part that the run does not have, or results that cannot be read.
    """
    _check.one_of("split", split, PARTS)
    results = read_results(run)
    trained = open_trained(run, settings, reduced=True)
    part_of(trained.parts, split)  # an error if the run has no such part
    names = [split, *(["gallery"] if split == "test" else []), *(["train"] if training else [])]
    parts, skipped = embed_parts(trained, names)
    queries, gallery = parts[split], parts.get("gallery")
    k, device = trained.config.run.k, device_of(trained.config)
    searched = None if gallery is None else gallery.embeddings
    report = evaluate_embeddings(queries.embeddings, searched, k=k, device=device)
    shown = min(SHOWN, report.gallery)
    if searched is None:
        near = search_others(queries.embeddings.vectors, shown)
    else:
        near = search(queries.embeddings.vectors, searched.vectors, shown)
    notes = list(results["test"]["notes"]) if split == "test" else list(trained.parts.split.notes)
    notes += [] if split == "test" else [f"the queries are the {split} classes, not the test classes"]
    notes += [left_out(skipped)] if skipped else []
    notes += _disagreement(RunFolder(run), report) if split == "test" else []
    return ReportData(
        run, trained, split, queries, gallery, parts.get("train"), report, near, results, tuple(dict.fromkeys(notes))
    )


def read_results(run: Path) -> dict[str, Any]:
    """The content of a run's ``results.json``; FileNotFoundError without a finished run."""
    folder = RunFolder(run)
    if not folder.config.is_file():
        raise FileNotFoundError(f"{run} is not a run: it has no {folder.config.name}")
    return folder.read_results()


def _disagreement(folder: RunFolder, report: RetrievalReport) -> list[str]:
    """A note if this page's measures differ from the run's own."""
    if not folder.per_query.is_file():  # runs of former versions have none
        return []
    before = folder.read_per_query()
    for name, values in report.per_query.items():
        if name not in before:  # another run.k
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
    """Rows whose value is not NaN."""
    return (~values.isnan()).nonzero()[:, 0]


def run_facts(data: ReportData) -> dict[str, str]:
    """Term -> description, for the head of the page."""
    config, results = data.trained.config, data.results
    parts, gallery = data.trained.parts, data.gallery
    loss = config.loss.model_dump(
        exclude={"proxy_sharding", "negative_sample_rate"}
    )  # keys that do not change the result
    name = loss.pop("name")
    held_out = parts.validation
    among = f"{data.report.gallery:,} {'items, itself left out' if gallery is None else 'gallery items'}"
    undefined = data.report.undefined
    facts = {
        "Data": parts.split.name,
        "Queries": f"{data.report.queries:,} {data.split} items of {_count(data.queries.items.classes)}, "
        f"each searched among {among}",
        "Classes": seen(data),
        "Undefined": f"{undefined:,} queries have nothing of their class to find and are left out of the means",
        "Trained on": f"{len(parts.train):,} items of {_count(parts.train.classes)}"
        + ("" if held_out is None else f"; {_count(held_out.classes)} held out of training"),
        "Model": f"{config.model.backbone}, {config.model.embedding_dim} dimensions, weights "
        f"{config.model.weights or 'random at the start'}, neck {config.model.neck}, head {config.model.head}",
        "Loss": f"{name}: " + ", ".join(f"{key} {value}" for key, value in loss.items()),
        "Epoch": f"{results.get('epoch')} of {config.run.epochs}, {results.get('chosen_by')}",
    }
    if data.split == "test" and (compared := compared_to_before(results)):
        facts["Before training"] = compared
    if not undefined:
        del facts["Undefined"]
    return facts


def seen(data: ReportData) -> str:
    """Whether the classes of the queries trained the network."""
    classes, trained = data.queries.items.classes, data.trained.classes
    known = int(torch.isin(classes, trained).sum())
    if data.split == "validation":
        return f"held out: the {_count(classes)} did not train, but chose the epoch, so the numbers are flattering"
    if known == 0:
        return f"unseen: none of the {_count(classes)} trained, and none chose the epoch"
    if known == len(classes):
        return f"seen: all {_count(classes)} of the queries trained"
    return f"{known:,} of the {_count(classes)} trained, {len(classes) - known:,} are unseen"


def formulas(loss: str) -> list[str]:
    """Whose formulas the page's numbers follow."""
    family = (
        "This run's loss is of the Multi Proxy Anchor family. Its formulas are polyanchor's own reading of the paper's "
        "abstract, with published Proxy Anchor (Kim et al., CVPR 2020) as the case of one proxy per class; nobody "
        "claims that they reproduce the paper's tables."
        if loss == _FAMILY
        else f"This run's loss, {loss}, is that of pytorch-metric-learning; it is not of the Multi Proxy Anchor family."
    )
    return [
        family,
        "nDCG@k: gains of 1 for the query's class, discount 1/log2(rank + 1), divided by the best possible order of "
        "the whole gallery. The query is left out by its identity. recall@k: any hit among the first k. "
        "MAP@R as Musgrave et al. (2020).",
        "Intervals: percentile bootstrap, 95 %. Over queries: other queries of the same classes, with the same "
        "gallery. Over classes: other classes of the same kind; queries of one class share its difficulty, so this is "
        "the wider and the more honest one. Neither says anything about another training with another seed.",
    ]


def environment(results: Mapping[str, Any]) -> dict[str, str]:
    """Versions and machine of the training, as far as the run recorded them."""
    facts = {str(name): str(value) for name, value in (results.get("environment") or {}).items()}
    if results.get("seconds") is not None:
        facts["seconds since the last start"] = f"{results['seconds']:,}"
    return facts


def _count(classes: torch.Tensor) -> str:
    return f"{len(classes):,} {'class' if len(classes) == 1 else 'classes'}"

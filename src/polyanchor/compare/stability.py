"""How stable are the measures? The same runs, evaluated with other seeds, queries and galleries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyanchor._errors import InputError
from polyanchor.compare.plan import ComparisonFolder
from polyanchor.config.builders import make_transforms
from polyanchor.metrics.retrieval import evaluate_retrieval
from polyanchor.runs.embed import embed
from polyanchor.runs.folder import RunFolder
from polyanchor.runs.load import open_trained
from polyanchor.stats.agreement import discrimination, mean_rank_agreement, pooled_deviation, rank_agreement
from polyanchor.types import Embeddings
from polyanchor.viz.figures import blank, write_figures

_HALVES = 20  # random halves of the queries
_RELATED = 0.5  # gain of an item of the class, but of another of its known finer classes
SHARES = (0.5, 0.25, 0.1)
GRADED = "graded ndcg@"
_COLOURS = ("#0072B2", "#E69F00", "#009E73")  # Okabe and Ito: colour-blind readers tell them apart
_KINDS = ("training seeds", "half of the queries", "half of the classes")


@dataclass(frozen=True)
class Spread:
    """Spread of a measure over repeats of one kind.

    Attributes:
        deviation: standard deviation of a method's mean over repeats, in units of the measure.
        relative: the same as a share of the mean over all methods.
        discrimination: deviation between methods in units of that over repeats.
        agreement: Kendall's tau-b between the orders of the methods in two repeats, mean over pairs.
    """

    deviation: float
    relative: float
    discrimination: float
    agreement: float


@dataclass(frozen=True)
class Gallery:
    """A measure in random subsets of the test items.

    Attributes:
        mean: over methods and draws; it depends on the size of the gallery.
        deviation: over draws.
        agreement: Kendall's tau-b between the order of the methods in the subset and in the whole.
    """

    mean: float
    deviation: float
    agreement: float


@dataclass(frozen=True)
class Stability:
    """Stability of the measures of a comparison.

    Attributes:
        methods: labels of the methods whose runs are all finished.
        seeds: runs of each.
        means: measure -> mean over all runs.
        over_seeds: measure -> spread over training seeds.
        over_queries: measure -> spread over random halves of the queries, of the methods' means over seeds.
        over_classes: measure -> spread over random halves of the test classes, of the same means.
        galleries: share of the test items -> measure -> its values in galleries of that size.
    """

    methods: tuple[str, ...]
    seeds: int
    means: Mapping[str, float]
    over_seeds: Mapping[str, Spread]
    over_queries: Mapping[str, Spread]
    over_classes: Mapping[str, Spread]
    galleries: Mapping[str, Mapping[str, Gallery]]


def stability(
    folder: ComparisonFolder,
    *,
    shares: Sequence[float] = SHARES,
    draws: int = 5,
    announce: Callable[[str], None] = lambda line: None,
) -> Stability:
    """Evaluate the finished runs of a comparison again.

    Args:
        folder: a comparison with two methods and two seeds or more.
        shares: of the test items in random galleries, whose items are the queries too; none leaves galleries out.
        draws: random galleries of each share.
        announce: receives progress lines.

    Raises:
        ValueError: too few methods or seeds, or a share outside (0, 1).
    """
    if any(not 0 < share < 1 for share in shares):
        raise InputError(f"shares of the test items must lie between 0 and 1, got {list(shares)}")
    labels, runs = _complete(folder)
    per_query = [[run.read_per_query() for run in row] for row in runs]
    names = [name for name in per_query[0][0] if name != "labels"]
    # (methods, seeds, Q, measures)
    values = torch.stack([torch.stack([torch.stack([of[n] for n in names], dim=1) for of in row]) for row in per_query])
    query_labels = per_query[0][0]["labels"]
    over_seeds = values.nanmean(dim=2).unbind(-1)
    halves = [
        torch.stack([_halves(method.nanmean(dim=0), groups) for method in values]).unbind(-1)
        for groups in (None, query_labels)
    ]
    seeds, queries, classes = (
        {name: _spread(part) for name, part in zip(names, kind, strict=True)} for kind in (over_seeds, *halves)
    )
    return Stability(
        tuple(labels),
        values.shape[1],
        {name: float(part.mean()) for name, part in zip(names, over_seeds, strict=True)},
        over_seeds=seeds,
        over_queries=queries,
        over_classes=classes,
        galleries=_galleries([row[0] for row in runs], shares, draws, announce) if shares else {},
    )


def _complete(folder: ComparisonFolder) -> tuple[list[str], list[list[RunFolder]]]:
    plan = folder.read()
    runs = {method.label: [folder.run(method.label, seed) for seed in range(plan.seeds)] for method in plan.methods}
    runs = {label: row for label, row in runs.items() if all(run.results.is_file() for run in row)}
    if len(runs) < 2 or plan.seeds < 2:
        raise InputError(
            f"stability needs 2 or more methods with 2 or more seeds, all finished, got {len(runs)} methods with all "
            f"of {plan.seeds} seeds in {folder.path}; give its polyanchor compare again, or more --seeds"
        )
    return list(runs), list(runs.values())


def _spread(values: Tensor) -> Spread:
    deviation = pooled_deviation(values)
    return Spread(deviation, deviation / float(values.mean()), discrimination(values), mean_rank_agreement(values))


def _halves(values: Tensor, groups: Tensor | None) -> Tensor:
    """``(repeats, measures)`` means over random halves of the queries, or of the classes; the same for all methods."""
    units = torch.arange(len(values)) if groups is None else groups.unique(return_inverse=True)[1]
    size, generator = int(units.max()) + 1, torch.Generator().manual_seed(0)
    chosen = [torch.randperm(size, generator=generator)[: size // 2] for _ in range(_HALVES)]
    return torch.stack([values[torch.isin(units, half)].nanmean(dim=0) for half in chosen])


def _galleries(
    runs: Sequence[RunFolder], shares: Sequence[float], draws: int, announce: Callable[[str], None]
) -> dict[str, dict[str, Gallery]]:
    means: dict[float, list[list[dict[str, float]]]] = {1.0: [], **{share: [] for share in shares}}
    for number, run in enumerate(runs):
        announce(f"galleries {number + 1}/{len(runs)}  {run.path.parent.name}")
        items, cutoffs = _test_embeddings(run)
        for share, of_methods in means.items():
            of_methods.append([_evaluate(items, cutoffs, share, draw) for draw in range(draws if share < 1 else 1)])
    names = [name for name in means[1.0][0][0] if all(name in row[0] for rows in means.values() for row in rows)]
    table: dict[str, dict[str, Gallery]] = {}
    for share, of_methods in means.items():
        table[f"{share:g}"] = {}
        for name in names:
            values = torch.tensor([[draw[name] for draw in method] for method in of_methods], dtype=torch.float64)
            whole = [method[0][name] for method in means[1.0]]
            taus = torch.tensor([rank_agreement(column.tolist(), whole) for column in values.unbind(1)])
            deviation = pooled_deviation(values) if values.shape[1] > 1 else float("nan")
            table[f"{share:g}"][name] = Gallery(float(values.mean()), deviation, float(taus.nanmean()))
    return table


def _test_embeddings(run: RunFolder) -> tuple[Embeddings, tuple[int, ...]]:
    trained = open_trained(run.path, reduced=True)
    if trained.parts.split.gallery is not None:
        raise InputError(
            f"{trained.parts.split.name} has a gallery of its own; random galleries need test items that have none"
        )
    transform = make_transforms(trained.config, trained.model.statistics)[1]
    return embed(trained.model, trained.parts.split.test, transform)[0], trained.config.run.k


def _evaluate(items: Embeddings, cutoffs: Sequence[int], share: float, draw: int) -> dict[str, float]:
    """Means in a random subset of the items; graded nDCG too where finer classes are known."""
    size = len(items.labels)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(draw))
    rows = order[: max(round(share * size), 2)].sort().values
    fitting = [k for k in cutoffs if k < len(rows)]
    means = dict(evaluate_retrieval(items.vectors[rows], items.labels[rows], k=fitting).means)
    if items.sublabels is not None:
        finer, gains = related_gains(items.labels, items.sublabels)
        graded = evaluate_retrieval(items.vectors[rows], finer[rows], k=fitting, gains=gains)
        means |= {f"{GRADED}{k}": graded.means[f"ndcg@{k}"] for k in fitting}
    return means


def related_gains(labels: Tensor, sublabels: Tensor) -> tuple[Tensor, Tensor]:
    """Gains of a two-level hierarchy: 1 within the finer class, 0.5 within the class, 0 elsewhere.

    Args:
        labels: ``(N,)`` integer, the classes.
        sublabels: ``(N,)`` integer, finer classes, each within one class.

    Returns:
        ``(N,)`` int64 finer classes numbered from 0, and their ``(F, F)`` float64 table of gains.

    Example:
        >>> related_gains(torch.tensor([0, 0, 1]), torch.tensor([7, 8, 9]))[1].tolist()
        [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    numbers, finer = sublabels.unique(return_inverse=True)
    parent = torch.zeros(len(numbers), dtype=labels.dtype).scatter_(0, finer, labels)
    if not torch.equal(parent[finer], labels):
        raise InputError("a finer class must lie within one class; got one that lies in several")
    gains = _RELATED * (parent[:, None] == parent).double()
    return finer, gains.fill_diagonal_(1.0)


def draw(result: Stability, measures: Sequence[str], out: Path) -> tuple[Path, ...]:
    """Write ``stability.svg`` and ``stability.png`` with these measures from top to bottom."""
    return write_figures({"stability": partial(_figure, result, measures)}, out)


def _figure(result: Stability, measures: Sequence[str]) -> Any:
    figure = blank(10, 1.6 + 0.42 * len(measures))
    axes = figure.subplots(1, 3)
    kinds = (result.over_seeds, result.over_queries, result.over_classes)
    _bars(axes[0], kinds, measures, "discrimination", "between methods / between repeats\n(more is better)")
    _bars(axes[1], kinds, measures, "agreement", "Kendall's tau of two repeats\n(more is better)")
    axes[1].set_yticklabels([])
    _lines(axes[2], result, measures)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=3, frameon=False, title="repeats: other")
    return figure


def _bars(axis: Any, kinds: Sequence[Mapping[str, Spread]], measures: Sequence[str], what: str, title: str) -> None:
    for number, (kind, colour, name) in enumerate(zip(kinds, _COLOURS, _KINDS, strict=True)):
        heights = [row + 0.25 * (number - 1) for row in range(len(measures))]
        axis.barh(heights, [getattr(kind[name], what) for name in measures], 0.22, color=colour, label=name)
    axis.set_yticks(range(len(measures)), measures)
    axis.set_ylim(len(measures) - 0.5, -0.5)  # the same in both panels, also where a bar is not defined
    axis.set_xlabel(title)
    axis.grid(axis="x", alpha=0.3)


def _lines(axis: Any, result: Stability, measures: Sequence[str]) -> None:
    galleries, shares = result.galleries, sorted(result.galleries, key=float)
    for number, name in enumerate(measures):
        measured = [share for share in shares if name in galleries[share]]
        if "1" not in measured:
            continue
        whole = galleries["1"][name].mean
        axis.plot(
            [float(share) for share in measured],
            [galleries[share][name].mean / whole for share in measured],
            marker="osD^vP*X"[number % 8],
            label=name,
        )
    axis.set_xscale("log")
    axis.set_xticks([float(share) for share in shares], shares)
    axis.minorticks_off()
    axis.set_xlabel("share of the test items in the gallery")
    axis.set_ylabel("mean / mean in the whole gallery")
    if axis.lines:
        axis.legend(frameon=False, fontsize="small")
    axis.grid(axis="x", alpha=0.3)

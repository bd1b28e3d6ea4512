"""The result of a comparison: means with intervals, and paired tests over seeds, queries and classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from polyanchor._errors import InputError
from polyanchor.compare.plan import ComparisonFolder
from polyanchor.runs.before import FORMS
from polyanchor.runs.folder import Finished, read_json
from polyanchor.stats.bootstrap import paired_bootstrap
from polyanchor.stats.intervals import Paired, corrected, mean_interval, paired_t
from polyanchor.types import Interval

FEW_SEEDS = 5  # with fewer, a t-test rests on the normality of the differences, which cannot be checked


@dataclass(frozen=True)
class SignificanceTests:
    """A method against the reference in one measure; p and its resolution are corrected for the methods (Holm).

    Attributes:
        seeds: paired Student test over runs of the same seeds.
        queries: paired bootstrap over queries, of the means over those seeds.
        classes: the same over whole classes.
    """

    seeds: Paired
    queries: Paired
    classes: Paired


@dataclass(frozen=True)
class MethodResult:
    """The results of one method.

    Attributes:
        label: its name.
        chosen: the loss and optimizer keys that it ran with.
        runs: number of finished runs.
        failed: number of runs that ended in values that are not finite.
        seconds: of a run, on average.
        validation: the selecting measure on the held-out training classes, at the chosen epochs; None without them.
        proxies: ``turn`` (median angle that proxies turned in an epoch, degrees) and ``length`` (median at its end), a
            number for each epoch, means over seeds; empty for a loss without proxies.
        means: measure -> mean over seeds with its 95 % interval.
        tests: measure -> against the reference; empty for the reference itself, or without a common seed.
    """

    label: str
    chosen: Mapping[str, Any]
    runs: int
    failed: int
    seconds: float
    validation: Interval | None
    proxies: Mapping[str, Sequence[float]]
    means: Mapping[str, Interval]
    tests: Mapping[str, SignificanceTests]


@dataclass(frozen=True)
class ComparisonResult:
    """The result of a comparison.

    Attributes:
        source: the data.
        reference: label of the reference.
        monitor: measure that chose epochs and hyper-parameters, on held-out training classes.
        trials: of each search.
        lines: the methods, best first by ``monitor``.
        notes: for the reader of the numbers.
        before: form of the features before training -> measure -> its mean over all runs.
    """

    source: str
    reference: str
    monitor: str
    trials: int
    lines: tuple[MethodResult, ...]
    notes: tuple[str, ...]
    before: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Run:
    seed: int
    means: Mapping[str, float]
    per_query: Mapping[str, Tensor]
    results: Mapping[str, Any]


def compare_methods(folder: ComparisonFolder) -> ComparisonResult:
    """Compare the methods by their finished runs.

    Raises:
        FileNotFoundError: the folder holds no comparison.
        ValueError: no run is finished, or the runs were not measured on the same queries.
    """
    plan = folder.read()
    runs = {method.label: _finished(folder, method.label, plan.seeds) for method in plan.methods}
    runs = {label: finished for label, finished in runs.items() if finished}
    if not runs:
        raise InputError(f"no run in {folder.path} is finished yet; go on with the same polyanchor compare")
    _same_queries(runs)
    reference = runs.get(plan.reference, [])
    names = tuple(next(iter(runs.values()))[0].means)
    others = {label: finished for label, finished in runs.items() if label != plan.reference}
    tests = _tests(others, reference, names)
    lines = [
        MethodResult(
            label,
            _chosen(finished[0].results["config"]),
            len(finished),
            sum(folder.failure(label, seed).is_file() for seed in range(plan.seeds)),
            sum(run.results["seconds"] for run in finished) / len(finished),
            _validation(finished),
            _proxies(finished),
            {name: mean_interval([run.means[name] for run in finished]) for name in names},
            tests.get(label, {}),
        )
        for label, finished in runs.items()
    ]
    monitor = plan.base.run.monitor
    lines.sort(key=lambda line: -line.means[monitor].mean)
    notes = dict.fromkeys(note for part in runs.values() for run in part for note in run.results["test"]["notes"])
    if 1 < (most := max(line.runs for line in lines)) < FEW_SEEDS:
        notes[f"p over seeds is of {most} seeds: a spread is hardly known from so few; {FEW_SEEDS} or more tell"] = None
    before = _before(runs)
    known = {form: means[monitor] for form, means in before.items() if not math.isnan(means.get(monitor, math.nan))}
    if known and (best := max(known, key=lambda form: known[form])) and lines[0].means[monitor].mean <= known[best]:
        notes[f"no method is better than before training: {monitor} {known[best]:.4f} ({FORMS.get(best, best)})"] = None
    return ComparisonResult(
        plan.base.data.source, plan.reference, monitor, plan.trials, tuple(lines), tuple(notes), before
    )


def _finished(folder: ComparisonFolder, label: str, seeds: int) -> list[_Run]:
    finished = []
    for seed in range(seeds):
        run = folder.run(label, seed)
        if run.results.is_file():
            results = read_json(run.results, Finished)
            test = results["test"]
            sub = {f"sub/{name}": mean for name, mean in (test.get("sub") or {"means": {}})["means"].items()}
            means = {name: math.nan if mean is None else mean for name, mean in (test["means"] | sub).items()}
            per_query = run.read_per_query()
            absent = {"labels", *means} - per_query.keys()
            if absent:
                raise InputError(f"{run.per_query} holds no {min(absent)}, which {run.results.name} beside it has")
            finished.append(_Run(seed, means, per_query, results))
    return finished


def _same_queries(runs: Mapping[str, list[_Run]]) -> None:
    labels = [run.per_query["labels"] for finished in runs.values() for run in finished]
    if not all(torch.equal(labels[0], other) for other in labels):
        raise InputError("the runs were not measured on the same queries; compare them on one copy of the data")


def _tests(
    others: Mapping[str, list[_Run]], reference: list[_Run], names: Sequence[str]
) -> dict[str, dict[str, SignificanceTests]]:
    """Label -> measure -> tests against the reference; p corrected over the methods."""
    over_seeds: dict[str, list[Paired]] = {}
    sides: dict[str, list[Tensor]] = {}
    for label, runs in others.items():
        seeds = {run.seed for run in runs} & {run.seed for run in reference}
        if not seeds:
            continue
        pairs = [[run for run in side if run.seed in seeds] for side in (runs, reference)]
        over_seeds[label] = [paired_t(*([run.means[name] for run in side] for side in pairs)) for name in names]
        sides[label] = [_mean_over_seeds(side, names) for side in pairs]
    labels = list(over_seeds)
    if not labels:
        return {}
    # all methods at once: the draws, which take most of the time, are the same for all
    first, second = (torch.cat([sides[label][side] for label in labels], dim=1) for side in (0, 1))
    drawn = [paired_bootstrap(first, second, groups) for groups in (None, reference[0].per_query["labels"])]
    tests: dict[str, dict[str, SignificanceTests]] = {label: {} for label in labels}
    for number, name in enumerate(names):
        kinds = [[over_seeds[label][number] for label in labels], *(kind[number :: len(names)] for kind in drawn)]
        for label, *three in zip(labels, *map(corrected, kinds), strict=True):
            tests[label][name] = SignificanceTests(*three)
    return tests


def _mean_over_seeds(runs: list[_Run], names: Sequence[str]) -> Tensor:
    """``(Q, measures)`` float64, each query's mean over the runs."""
    return torch.stack([torch.stack([run.per_query[name] for name in names], dim=1) for run in runs]).mean(dim=0)


def _validation(runs: Sequence[_Run]) -> Interval | None:
    values = [value for run in runs for value in (run.results.get("validation") or {}).values()]
    return mean_interval(values) if values else None


def _before(runs: Mapping[str, list[_Run]]) -> dict[str, dict[str, float]]:
    reports = [run.results["before"] for finished in runs.values() for run in finished if run.results.get("before")]
    table: dict[str, dict[str, float]] = {}
    for form in reports[0] if reports else ():
        means = [report[form]["means"] for report in reports if form in report]
        table[form] = {
            name: math.nan if None in (values := [part[name] for part in means]) else sum(values) / len(values)
            for name in means[0]
            if all(name in part for part in means)
        }
    return table


def _proxies(runs: Sequence[_Run]) -> dict[str, list[float]]:
    recorded = [run.results["epochs"] for run in runs if "proxy_turn" in (run.results.get("epochs") or [{}])[0]]
    epochs = list(zip(*recorded, strict=True))  # the rows of all runs, epoch by epoch
    names = ("turn", "length") if recorded else ()
    return {name: [sum(row[f"proxy_{name}"] for row in rows) / len(rows) for rows in epochs] for name in names}


def _chosen(config: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("lr", "head_lr_mult", "proxy_lr_mult", "proxy_weight_decay", "renormalize_proxies")
    return {"loss": config["loss"], "optim": {key: config["optim"][key] for key in keys}}

"""Run a comparison: for each method a search, then a run for each seed. It can be killed and continued at any time."""

from __future__ import annotations

from pathlib import Path

from polyanchor._check import NotFiniteError
from polyanchor._errors import InputError
from polyanchor._io import replacing
from polyanchor.compare.plan import ComparisonFolder, Method, Plan, tune
from polyanchor.compare.significance import ComparisonResult, compare_methods
from polyanchor.compare.tables import write
from polyanchor.config.builders import open_parts
from polyanchor.config.loading import change_config
from polyanchor.config.schema import Config
from polyanchor.runs.folder import held
from polyanchor.training.stopping import Interrupted, StopRequest
from polyanchor.training.train import train
from polyanchor.types import Announce

BETWEEN_ITEMS = ("multi-similarity", "supcon", "triplet", "contrastive")


def compare(
    plan: Plan, out: Path, *, announce: Announce = lambda line: None, stop: StopRequest | None = None
) -> ComparisonResult:
    """Run the missing parts of a comparison and compare the methods.

    Each method has the same number of trials for its hyper-parameters, judged on held-out training classes with a
    seed of their own; then runs with the seeds 0, 1, ..., each with the same held-out classes and the same batches
    for every method. The epoch is chosen on held-out training classes too. The test classes are measured once a run.

    Args:
        plan: methods, seeds, trials.
        out: folder, see :mod:`polyanchor.compare.plan`. An unfinished comparison of the same plan is continued;
            methods and seeds can be added to a finished one.
        announce: receives progress lines.
        stop: ends the comparison after the current step.

    Raises:
        Interrupted: a stop was requested.
        ValueError: the plan, the configuration or the data is not usable, or another process works in the folder.
    """
    _check(plan)
    folder = ComparisonFolder(out)
    out = folder.path
    folder.make()
    with held(out):
        return _compared(plan, folder, announce, stop or StopRequest(announce))


def _compared(plan: Plan, folder: ComparisonFolder, announce: Announce, stop: StopRequest) -> ComparisonResult:
    folder.begin(plan)
    tuned: dict[str, Config] = {}
    with stop.listening():  # between the trainings too, which listen by themselves
        for method in plan.methods:
            _unless(stop)
            search = folder.tuning(method.label)
            settings = tune(method, plan.base, search, trials=plan.trials, announce=announce, stop=stop)
            tuned[method.label] = change_config(method.config(plan.base), settings)
        for seed in range(plan.seeds):
            for method in plan.methods:
                _unless(stop)
                _run(folder, method, tuned[method.label], seed, announce=announce, stop=stop)
    _unless(stop)
    result = compare_methods(folder)
    write(result, folder.path)
    return result


def _run(
    folder: ComparisonFolder, method: Method, config: Config, seed: int, *, announce: Announce, stop: StopRequest
) -> None:
    run, failure = folder.run(method.label, seed), folder.failure(method.label, seed)
    if run.results.is_file() or failure.is_file():
        return
    try:
        seeded = change_config(config, [f"run.seed={seed}"])
        report = train(seeded, run.path, resume=run.config.is_file(), stop=stop)
    except NotFiniteError as error:
        with replacing(failure) as unfinished:
            unfinished.write_text(f"{error}\n", encoding="utf-8")  # the others continue; the table counts it
        announce(f"{method.label} seed {seed}  failed: {error}")
        return
    means = "  ".join(f"{name} {report.means[name]:.4f}" for name in ("recall@1", "map@r") if name in report.means)
    announce(f"{method.label} seed {seed}  test classes: {means}")


def _check(plan: Plan) -> None:
    """Refuse a plan that would fail, or mislead, after hours."""
    if plan.reference not in {method.label for method in plan.methods}:
        labels = ", ".join(method.label for method in plan.methods)
        raise InputError(f"--reference, the method to test against, must be one of {labels}, got {plan.reference!r}")
    if plan.seeds < 1 or plan.trials < 0:
        raise InputError(f"seeds must be 1 or more and trials 0 or more, got {plan.seeds} and {plan.trials}")
    if plan.trials and plan.base.data.val_share == 0:
        raise InputError(
            "a search needs held-out training classes to judge by: set data.val_share above 0, or --trials 0"
        )
    if plan.base.batches.sampler != "balanced":
        between = [m.label for m in plan.methods if m.config(plan.base).loss.name in BETWEEN_ITEMS]
        if between:
            raise InputError(
                f"{between[0]} compares items of a class within a batch: set batches.sampler to 'balanced' "
                "for all methods"
            )
    for method in plan.methods:
        method.space(plan.base)
    open_parts(plan.base)


def _unless(stop: StopRequest) -> None:
    if stop.made:
        raise Interrupted

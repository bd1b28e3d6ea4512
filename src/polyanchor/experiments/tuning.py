"""The search for a method's hyper-parameters: as many trials for each, judged on held-out training classes."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polyanchor._check import NotFiniteError
from polyanchor._errors import InputError
from polyanchor._extras import load
from polyanchor.experiments.methods import Method
from polyanchor.training.config import Config
from polyanchor.training.config_file import change_config
from polyanchor.training.fit import fit
from polyanchor.training.run_folder import RunFolder, write_json
from polyanchor.training.stopping import StopRequest
from polyanchor.training.summary import Announce

SEED = 1_000  # of every trial: other held-out classes and batches than those of the runs that count


def tune(
    method: Method,
    base: Config,
    folder: Path,
    *,
    trials: int,
    announce: Announce,
    stop: StopRequest,
) -> tuple[str, ...]:
    """The best settings found in a number of trials; goes on where a search in the same folder stood.

    The first trial takes the configuration as it is. The others are drawn by optuna's tree-structured Parzen
    estimator, seeded by the number of the trial, so that an interrupted search ends as an uninterrupted one does.
    A trial whose numbers are not finite counts.

    Args:
        method: whose parameters are searched.
        base: the common configuration; ``data.val_share`` of its training classes judge, by ``run.select``.
        folder: for the search's journal.
        trials: how many; 0 takes the configuration as it is.
        announce: receives a line for each trial.
        stop: asked for a stop between trials too.

    Returns:
        ``section.key=value`` settings; none if nothing was searched.

    Raises:
        Interrupted: a stop was asked for.
        ValueError: no trial gave a finite measure, or the configuration or the data is not usable.
    """
    if trials == 0:
        return ()
    optuna = load("optuna", "compare")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    journal = optuna.storages.journal
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(journal.JournalFileBackend(str(folder / "journal.log"))),
        study_name=method.label,
        direction="maximize",
        load_if_exists=True,
    )
    failed = optuna.trial.TrialState.FAIL
    for left in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        study.tell(left.number, state=failed)  # killed under way: it is made again
    space = method.space(base)
    while len(done := list(_finished(study))) < trials:
        study.sampler = optuna.samplers.TPESampler(seed=SEED + len(done), n_startup_trials=max(trials // 3, 5))
        if not done:
            study.enqueue_trial(_as_configured(method.config(base), space), skip_if_exists=True)
        trial = study.ask()
        chosen = {
            key: trial.suggest_float(key, values.low, values.high, log=values.log) for key, values in space.items()
        }
        value = _trial(method, base, _settings(chosen), folder / "trial", stop=stop)
        if math.isnan(value):
            trial.set_user_attr("not finite", True)
            study.tell(trial, state=failed)
        else:
            study.tell(trial, value)
        found = f"{base.run.select} {value:.4f}" if not math.isnan(value) else "not finite"
        announce(f"tuning {method.label} {len(done) + 1}/{trials}  held-out training classes: {found}")
    best = max(_finished(study), key=lambda trial: -math.inf if trial.value is None else trial.value)
    if best.value is None:
        raise InputError(f"no trial of {method.label} gave a finite {base.run.select}; lower optim.lr")
    said = {"value": best.value, "params": best.params, "trials": trials, "measure": base.run.select}
    write_json(folder / "best.json", said)
    return _settings(best.params)


def _finished(study: Any) -> Iterator[Any]:
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name == "COMPLETE" or "not finite" in trial.user_attrs:
            yield trial


def _trial(method: Method, base: Config, settings: tuple[str, ...], scratch: Path, *, stop: StopRequest) -> float:
    """The measure on the held-out classes; NaN if the training ran into values that are not finite."""
    config = change_config(method.config(base), (*settings, f"run.seed={SEED}", "run.loggers=[]", "run.log_images=0"))
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        value = fit(config, RunFolder(scratch), stop=stop).validation
    except NotFiniteError:
        return math.nan
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return math.nan if value is None or math.isinf(value) else value


def _as_configured(config: Config, space: dict[str, Any]) -> dict[str, float]:
    """The configuration's own values, within the ranges."""
    raw = config.model_dump(mode="json")
    values = {key: raw[key.partition(".")[0]][key.partition(".")[2]] for key in space}
    return {key: min(max(value, space[key].low), space[key].high) for key, value in values.items()}


def _settings(params: dict[str, float]) -> tuple[str, ...]:
    return tuple(f"{key}={value!r}" for key, value in params.items())

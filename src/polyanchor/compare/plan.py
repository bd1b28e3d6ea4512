"""What is compared, its folder, and the search for each method's hyper-parameters.

The folder of a comparison holds

``comparison.json``      what is compared, with the common configuration
``tuning/LABEL/``        the search for one method: ``journal.log``, ``best.json``
``runs/LABEL/seed-S/``   a run's folder, see :mod:`polyanchor.runs.folder`
``table.json table.md``  the results, see :mod:`polyanchor.compare.significance`
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from polyanchor import _check
from polyanchor._check import NotFiniteError
from polyanchor._errors import InputError
from polyanchor._io import is_unfinished, user_path
from polyanchor._optional import load
from polyanchor.config.builders import with_recipe
from polyanchor.config.loading import change_config
from polyanchor.config.schema import Config, MultiProxyAnchor
from polyanchor.losses.pml import BASELINES
from polyanchor.runs.folder import RunFolder, Written, is_lock, read_json, write_json
from polyanchor.training.stopping import StopRequest
from polyanchor.training.train import fit
from polyanchor.types import Announce

FAMILY = ("class", "data", "mixed")
KNOWN = (*FAMILY, *BASELINES)
SEED = 1_000  # of every trial: other held-out classes and batches than those of the runs that count
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Range:
    """Range of a searched value, both ends included; ``log`` draws evenly in the logarithm."""

    low: float
    high: float
    log: bool = False


_SPACES: Mapping[str, Mapping[str, Range]] = MappingProxyType(
    {
        "multi-proxy-anchor": {"alpha": Range(8, 64, True), "delta": Range(0, 0.3), "gamma": Range(0.02, 0.5, True)},
        "proxy-nca": {"scale": Range(1, 30, True)},
        "normsoftmax": {"temperature": Range(0.02, 0.2, True)},
        "softtriple": {
            "scale": Range(5, 60, True),
            "gamma": Range(0.02, 0.5, True),
            "margin": Range(0, 0.3),
            "center_reg": Range(0, 0.5),
        },
        "arcface": {"margin": Range(5, 45), "scale": Range(8, 100, True)},
        "subcenter-arcface": {"margin": Range(5, 45), "scale": Range(8, 100, True)},
        "proxy-anchor": {"alpha": Range(8, 64, True), "delta": Range(0, 0.3)},
        "multi-similarity": {
            "alpha": Range(0.5, 10, True),
            "beta": Range(10, 100, True),
            "base": Range(0.2, 0.9),
            "epsilon": Range(0.02, 0.3, True),
        },
        "supcon": {"temperature": Range(0.02, 0.5, True)},
        "triplet": {"margin": Range(0.02, 0.5, True)},
        "contrastive": {"positive": Range(0, 0.4), "negative": Range(0.3, 1.3)},
    }
)
_LR_FACTOR = 10.0  # the learning rate is searched from a tenth to ten times the configuration's
_PROXY_LR_MULT = Range(1, 300, True)


@dataclass(frozen=True)
class Method:
    """A loss with its own settings.

    Attributes:
        label: its name in tables and folders.
        settings: its changes to the common configuration.
    """

    label: str
    settings: tuple[str, ...]

    def config(self, base: Config) -> Config:
        """The common configuration with this method's loss."""
        return change_config(base, self.settings)

    def space(self, base: Config) -> dict[str, Range]:
        """The search space: the learning rate, the proxies' multiple of it, the loss's own parameters.

        Keys that the method sets itself are left out, and so are parameters without effect (``gamma`` with a single
        centre).
        """
        config = self.config(base)
        lr, loss = base.optim.lr, config.loss
        space = {"optim.lr": Range(lr / _LR_FACTOR, lr * _LR_FACTOR, True)}
        if isinstance(loss, MultiProxyAnchor) or BASELINES[loss.name].weights:
            space["optim.proxy_lr_mult"] = _PROXY_LR_MULT
        without_effect = ("gamma", "center_reg") if getattr(loss, "proxies_per_class", 2) == 1 else ()
        space |= {f"loss.{name}": part for name, part in _SPACES[loss.name].items() if name not in without_effect}
        own = {setting.partition("=")[0] for setting in self.settings}
        return {key: part for key, part in space.items() if key not in own}


def parse_method(text: str) -> Method:
    """Read a method, ``[LABEL:]NAME[,section.key=value ...]``.

    NAME is ``class``, ``data`` or ``mixed`` for a member of the Multi Proxy Anchor family, or a baseline of
    :data:`polyanchor.losses.pml.BASELINES`.

    Raises:
        ValueError: an unknown name (the message has the nearest), or a label that cannot be a folder's name.

    Example:
        >>> parse_method("one:class,loss.proxies_per_class=1")
        Method(label='one', settings=('loss.anchor=class', 'loss.proxies_per_class=1'))
        >>> parse_method("arcface")
        Method(label='arcface', settings=('loss.name=arcface',))
    """
    head, *settings = [part.strip() for part in text.split(",")]
    label, colon, name = head.rpartition(":")
    if name not in KNOWN:
        raise InputError(f"a method must be one of {', '.join(KNOWN)}, got {name!r}{_check.nearest(name, KNOWN)}")
    first = f"loss.anchor={name}" if name in FAMILY else f"loss.name={name}"
    label = label if colon else "-".join([name, *(setting.rpartition(".")[2].replace("=", "") for setting in settings)])
    if not _LABEL.fullmatch(label):
        raise InputError(
            f"the label of a method names its folder and may hold letters, digits, '.', '_' and '-', got {label!r}; "
            "write LABEL:NAME,section.key=value"
        )
    return Method(label, (first, *settings))


def parse_methods(texts: Sequence[str]) -> tuple[Method, ...]:
    """Read several methods; ``all`` stands for every known name.

    Raises:
        ValueError: two methods of one label.

    Example:
        >>> len(parse_methods(["all", "one:class,loss.proxies_per_class=1"]))
        14
    """
    methods = [parse_method(name) for text in texts for name in (KNOWN if text == "all" else (text,))]
    labels = [method.label for method in methods]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise InputError(f"two methods are called {twice!r}; write LABEL:NAME,... to tell them apart")
    return tuple(methods)


@dataclass(frozen=True)
class Plan:
    """A comparison to run.

    Attributes:
        base: the common configuration.
        methods: losses with their own settings.
        seeds: runs of each, with the seeds 0, 1, ...
        trials: of the search for each method's hyper-parameters.
        reference: label of the method that the others are tested against.
    """

    base: Config
    methods: tuple[Method, ...]
    seeds: int
    trials: int
    reference: str


class PlanWritten(Written):
    """``comparison.json``."""

    config: dict[str, dict[str, Any]]
    methods: dict[str, list[str]]
    seeds: int
    trials: int
    reference: str


@dataclass(frozen=True)
class ComparisonFolder:
    """Paths inside a comparison's folder."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", user_path(self.path))

    @property
    def plan(self) -> Path:
        return self.path / "comparison.json"

    def tuning(self, label: str) -> Path:
        return self.path / "tuning" / label

    def run(self, label: str, seed: int) -> RunFolder:
        return RunFolder(self.path / "runs" / label / f"seed-{seed}")

    def failure(self, label: str, seed: int) -> Path:
        """The file with the reason why a run failed, beside its folder."""
        return self.path / "runs" / label / f"seed-{seed}.failed"

    def make(self) -> None:
        """Make the folder; FileExistsError if it holds something else than a comparison."""
        names = [file.name for file in self.path.iterdir()] if self.path.exists() else []
        if not self.plan.is_file() and not all(is_unfinished(name) or is_lock(name) for name in names):
            raise FileExistsError(f"{self.path} is not empty and no comparison; take another --out")
        self.path.mkdir(parents=True, exist_ok=True)

    def begin(self, plan: Plan) -> None:
        """Write the plan, or check that it continues the one in the folder; methods and seeds may be added.

        Raises:
            FileExistsError: the folder holds something else.
            ValueError: the common configuration, the number of trials or the settings of a method differ.
        """
        self.make()
        if not self.plan.is_file():
            write_json(self.plan, _as_json(plan))
            return
        before, now = self.read_plan(), _as_json(plan)
        for key, what in (("config", "common configuration"), ("trials", "number of trials")):
            if before[key] != now[key]:
                raise InputError(
                    f"{self.path} was begun with another {what}{_difference(before[key], now[key])}; "
                    "take another --out, or the same settings to go on"
                )
        changed = [label for label, own in now["methods"].items() if before["methods"].get(label, own) != own]
        if changed:
            raise InputError(
                f"{self.path} has a method {changed[0]!r} with other settings, {before['methods'][changed[0]]}; "
                "give the new one a label of its own"
            )
        now["methods"] = before["methods"] | now["methods"]
        now["seeds"] = max(before["seeds"], now["seeds"])
        write_json(self.plan, now)

    def read(self) -> Plan:
        """The plan, with all methods and seeds that were ever added."""
        if not self.plan.is_file():
            raise FileNotFoundError(f"{self.path} is not a comparison: it has no {self.plan.name}")
        plan = self.read_plan()
        methods = tuple(Method(label, tuple(own)) for label, own in plan["methods"].items())
        try:
            config = Config.model_validate(plan["config"])
        except ValidationError as error:
            fault = error.errors()[0]
            raise InputError(f"{self.plan}: config.{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
        return Plan(config, methods, plan["seeds"], plan["trials"], plan["reference"])

    def read_plan(self) -> dict[str, Any]:
        """The plan as it stands in the file."""
        return read_json(self.plan, PlanWritten)


def _as_json(plan: Plan) -> dict[str, Any]:
    return {
        "config": plan.base.model_dump(mode="json"),
        "methods": {method.label: list(method.settings) for method in plan.methods},
        "seeds": plan.seeds,
        "trials": plan.trials,
        "reference": plan.reference,
    }


def _difference(before: Any, now: Any) -> str:
    """The first key that differs, for a message."""
    if not isinstance(before, dict):
        return f": {before} before, {now} now"
    for section, part in before.items():
        for key, value in part.items():
            if now[section].get(key, value) != value:
                return f": {section}.{key} = {value!r} before, {now[section][key]!r} now"
    return ""


def tune(
    method: Method, base: Config, folder: Path, *, trials: int, announce: Announce, stop: StopRequest
) -> tuple[str, ...]:
    """Search the best settings of a method; continues an interrupted search in the same folder.

    The first trial takes the configuration as it is. The others are drawn by optuna's tree-structured Parzen
    estimator, seeded by the number of the trial, so that an interrupted search ends as an uninterrupted one does.
    A trial that runs into values that are not finite counts as one.

    Args:
        method: whose parameters are searched.
        base: the common configuration; trials are judged by ``run.monitor`` on the ``data.val_share`` of its training
            classes.
        folder: for the search's journal.
        trials: their number; 0 takes the configuration as it is.
        announce: receives a line for each trial.
        stop: ends the search, between trials too.

    Returns:
        ``section.key=value`` settings; empty if nothing was searched.

    Raises:
        Interrupted: a stop was requested.
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
        study.tell(left.number, state=failed)  # it was killed, and is repeated
    space = method.space(base)
    while len(done := list(_finished(study))) < trials:
        study.sampler = optuna.samplers.TPESampler(seed=SEED + len(done), n_startup_trials=max(trials // 3, 5))
        if not done:
            study.enqueue_trial(_as_configured(method.config(base), space), skip_if_exists=True)
        trial = study.ask()
        chosen = {key: trial.suggest_float(key, part.low, part.high, log=part.log) for key, part in space.items()}
        value = _trial(method, base, _settings(chosen), folder / "trial", stop=stop)
        if math.isnan(value):
            trial.set_user_attr("not finite", True)
            study.tell(trial, state=failed)
            outcome = "not finite"
        else:
            study.tell(trial, value)
            outcome = f"{base.run.monitor} {value:.4f}"
        announce(f"tuning {method.label} {len(done) + 1}/{trials}  held-out training classes: {outcome}")
    best = max(_finished(study), key=lambda trial: -math.inf if trial.value is None else trial.value)
    if best.value is None:
        raise InputError(f"no trial of {method.label} gave a finite {base.run.monitor}; lower optim.lr")
    report = {"value": best.value, "params": best.params, "trials": trials, "measure": base.run.monitor}
    write_json(folder / "best.json", report)
    return _settings(best.params)


def _finished(study: Any) -> Iterator[Any]:
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name == "COMPLETE" or "not finite" in trial.user_attrs:
            yield trial


def _trial(method: Method, base: Config, settings: tuple[str, ...], scratch: Path, *, stop: StopRequest) -> float:
    """The measure on the held-out classes; NaN if training ran into values that are not finite."""
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
    raw = with_recipe(config).model_dump(mode="json")
    values = {key: raw[key.partition(".")[0]][key.partition(".")[2]] for key in space}
    return {key: min(max(value, space[key].low), space[key].high) for key, value in values.items()}


def _settings(params: dict[str, float]) -> tuple[str, ...]:
    return tuple(f"{key}={value!r}" for key, value in params.items())

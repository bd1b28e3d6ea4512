"""The folder of a comparison.

``comparison.json``      what is compared, with the common configuration
``tuning/LABEL/``        the search for one method: ``journal.log``, ``best.json``
``runs/LABEL/seed-S/``   a run's folder, see :mod:`polyanchor.training.run_folder`
``table.json table.md``  what came out, see :mod:`polyanchor.experiments.verdict`
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from polyanchor._errors import InputError
from polyanchor._files import is_unfinished, user_path
from polyanchor.experiments.methods import Method
from polyanchor.training.config import Config
from polyanchor.training.held import is_lock
from polyanchor.training.run_folder import RunFolder, write_json
from polyanchor.training.written import Written, read_json


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        base: the common configuration.
        methods: losses with their own settings.
        seeds: runs of each, with the seeds 0, 1, ...
        trials: of the search for each method's hyper-parameters.
        against: label of the method that the others are tested against.
    """

    base: Config
    methods: tuple[Method, ...]
    seeds: int
    trials: int
    against: str


class PlanWritten(Written):
    """``comparison.json``."""

    config: dict[str, dict[str, Any]]
    methods: dict[str, list[str]]
    seeds: int
    trials: int
    against: str


@dataclass(frozen=True)
class ComparisonFolder:
    """Names inside a comparison's folder.

    Args:
        path: the folder.
    """

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
        """Beside the run's folder: why it could not be finished."""
        return self.path / "runs" / label / f"seed-{seed}.failed"

    def make(self) -> None:
        """Make the folder; refuses one that holds something else than a comparison."""
        held = [file.name for file in self.path.iterdir()] if self.path.exists() else []
        if not self.plan.is_file() and not all(is_unfinished(name) or is_lock(name) for name in held):
            raise FileExistsError(f"{self.path} is not empty and no comparison; take another --out")
        self.path.mkdir(parents=True, exist_ok=True)

    def begin(self, plan: Plan) -> None:
        """Write the plan down, or see that it goes on with the one that is there; methods and seeds may be added.

        Raises:
            FileExistsError: the folder holds something else.
            ValueError: the common configuration, the number of trials or the settings of a method are others.
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
        """The plan, with all methods and seeds that were ever asked for."""
        if not self.plan.is_file():
            raise FileNotFoundError(f"{self.path} is not a comparison: it has no {self.plan.name}")
        said = self.read_plan()
        methods = tuple(Method(label, tuple(own)) for label, own in said["methods"].items())
        try:
            config = Config.model_validate(said["config"])
        except ValidationError as error:
            fault = error.errors()[0]
            raise InputError(f"{self.plan}: config.{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
        return Plan(config, methods, said["seeds"], said["trials"], said["against"])

    def read_plan(self) -> dict[str, Any]:
        """The plan as it was written down."""
        return read_json(self.plan, PlanWritten)


def _as_json(plan: Plan) -> dict[str, Any]:
    return {
        "config": plan.base.model_dump(mode="json"),
        "methods": {method.label: list(method.settings) for method in plan.methods},
        "seeds": plan.seeds,
        "trials": plan.trials,
        "against": plan.against,
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

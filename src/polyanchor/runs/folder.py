"""The folder of a run: its files, its lock, and the model in it.

``config.toml``         the resolved configuration
``split.json``          data source, its fingerprint, the training, validation and test classes with their names
``checkpoints/``        ``last.ckpt`` and ``best.ckpt``, to resume from
``model.safetensors``   the chosen weights, with the proxies: all that evaluation needs
``per_query.safetensors``  each metric of each test query, with the query's class
``before.json``         metrics of the features before training
``results.json``        metrics on the test classes, how the epoch was chosen, versions, machine, commit
``logs/``               curves
``lock``                locked by the process that trains; the file stays when the lock is released
``not_finite.safetensors``  the batch at which a training met NaN, see :mod:`polyanchor.training.nan_guard`
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from polyanchor._errors import InputError
from polyanchor._io import is_unfinished, reading, replacing, save_tensors, user_path
from polyanchor.config.loading import dump_config, load_config
from polyanchor.config.schema import Config
from polyanchor.models.embedding import EmbeddingModel, restored_model
from polyanchor.models.weights import read_state
from polyanchor.types import RetrievalReport

_LOCK, _HOLDER = "lock", "lock.json"  # two files, as an attempt to lock a file may empty it


class RunFolder:
    """The files of a run, see :mod:`polyanchor.runs.folder`.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path = user_path(path)
        self.config, self.split, self.results = path / "config.toml", path / "split.json", path / "results.json"
        self.checkpoints = path / "checkpoints"
        self.last, self.best = self.checkpoints / "last.ckpt", self.checkpoints / "best.ckpt"
        self.model, self.per_query = path / "model.safetensors", path / "per_query.safetensors"
        self.before = path / "before.json"
        self.not_finite = path / "not_finite.safetensors"

    def begin(self) -> None:
        """Create the folder; refuses one that is not empty."""
        names = [file.name for file in self.path.iterdir()] if self.path.exists() else []
        if not all(is_unfinished(name) or is_lock(name) for name in names):
            raise FileExistsError(
                f"{self.path} is not empty; take another --out, or go on with: polyanchor train --resume {self.path}"
            )
        self.path.mkdir(parents=True, exist_ok=True)

    def write_config(self, config: Config) -> None:
        """Write the resolved configuration, of a resumed run the changed one."""
        with replacing(self.config) as unfinished:
            unfinished.write_text(dump_config(config), encoding="utf-8")

    def read_config(self, settings: tuple[str, ...] = ()) -> Config:
        """The configuration of the run, changed by ``settings``.

        Raises:
            FileNotFoundError: there is no run.
            InputError: the file is damaged, or a setting is wrong.
        """
        if not self.config.is_file():
            raise FileNotFoundError(f"{self.path} is not a run: it has no {self.config.name}")
        config = load_config(self.config, settings)
        text = self.config.read_text(encoding="utf-8-sig")
        missing = [name for name in Config.model_fields if f"[{name}]" not in text.splitlines()]
        if missing or not text.endswith("\n"):  # missing keys would silently be the defaults
            where = f"[{missing[0]}] is missing" if missing else "its last line breaks off"
            raise InputError(f"{self.config} is not whole: {where}; put it back from a copy")
        return config

    def save_per_query(self, report: RetrievalReport) -> None:
        """Write the metrics of each query, ``(Q,)`` float64, and their ``labels``, ``(Q,)`` int64.

        Metrics by finer classes, where these are known, have the prefix ``sub/``.
        """
        tensors = dict(report.per_query)
        if report.labels is not None:
            tensors["labels"] = report.labels
        if report.sub is not None:
            tensors |= {f"sub/{name}": values for name, values in report.sub.per_query.items()}
        save_tensors(tensors, self.per_query)

    def read_per_query(self) -> dict[str, Tensor]:
        """Read what :meth:`save_per_query` wrote.

        Raises:
            InputError: the file is damaged, or not a run's.
        """
        tensors = read_state(self.per_query)
        shapes = {values.shape for values in tensors.values()}
        dtypes = {values.dtype for name, values in tensors.items() if name != "labels"}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1 or dtypes != {torch.float64}:
            raise InputError(
                f"{self.per_query} is not what a run writes: expected float64 measures, one for each query, got "
                f"{', '.join(f'{name} {values.dtype} {tuple(values.shape)}' for name, values in tensors.items())[:200]}"
            )
        return tensors

    def read_results(self) -> dict[str, Any]:
        """Read ``results.json``.

        Raises:
            FileNotFoundError: the run is not finished.
            InputError: the file is not what a run writes.
        """
        self._require(self.results)
        return read_json(self.results, Results)

    def read_split(self) -> dict[str, Any]:
        """Read ``split.json``; raises as :meth:`read_results` does."""
        return read_json(self.split, SplitWritten)

    def save_model(self, model: EmbeddingModel, loss: Mapping[str, Tensor], classes: Tensor) -> None:
        """Write the weights, the state of the loss with its proxies, and the class ids of the proxies."""
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        tensors |= {f"loss.{name}": tensor for name, tensor in loss.items()}
        tensors["classes"] = classes
        save_tensors(tensors, self.model)

    def load_model(self) -> EmbeddingModel:
        """The model of a finished run, in evaluation mode, on the CPU."""
        return self.read_model()[0]

    def read_model(self) -> tuple[EmbeddingModel, dict[str, Tensor]]:
        """:meth:`load_model`, and all tensors of its file: those of the loss and the class ids too."""
        config = self.read_config()
        self._require(self.model)
        state = read_state(self.model)
        weights = {name[6:]: tensor for name, tensor in state.items() if name.startswith("model.")}
        try:
            model = restored_model(
                config.model.backbone,
                weights,
                pooling=config.model.pooling,
                neck="none" if config.model.neck == "auto" else config.model.neck,
                channels_last=config.run.channels_last,
                image_size=config.images.size,
            )
        except InputError as error:
            raise InputError(f"{self.model} does not fit the run's {self.config.name}: {error}") from error
        if model.embedding_dim != config.model.embedding_dim:
            raise InputError(
                f"{self.model} does not fit the run's {self.config.name}: it gives {model.embedding_dim} "
                f"dimensions, and model.embedding_dim is {config.model.embedding_dim}"
            )
        return model, state

    def _require(self, file: Path) -> None:
        if not file.is_file():
            raise FileNotFoundError(
                f"{self.path} has no {file.name}: the run is not finished; go on with: "
                f"polyanchor train --resume {self.path}"
            )


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a readable JSON file atomically; NaN becomes null."""
    text = json.dumps(without_nan(content), indent=1, ensure_ascii=False, allow_nan=False)
    with replacing(path) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def without_nan(value: Any) -> Any:
    """``value`` with None for NaN and infinity, which JSON lacks.

    Example:
        >>> without_nan({"a": (1.0, float("nan"))})
        {'a': [1.0, None]}
    """
    if isinstance(value, Mapping):
        return {key: without_nan(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_json(report: RetrievalReport) -> dict[str, Any]:
    """A report without its per-query values; NaN becomes None.

    Example:
        >>> as_json(RetrievalReport({}, {"mrr": float("nan")}, 2, 2, 1))["means"]
        {'mrr': None}
    """
    return {
        "means": without_nan(report.means),
        "queries": report.queries,
        "gallery": report.gallery,
        "undefined": report.undefined,
        "notes": list(report.notes),
        **({} if report.sub is None else {"sub": as_json(report.sub)}),
    }


def read_json(path: Path, kind: type[Written]) -> dict[str, Any]:
    """The content of a JSON file, checked for the keys of ``kind`` and their types.

    Raises:
        InputError: a key is missing or of another type, or the file is no JSON.
        OSError: it cannot be read.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.json"
        >>> _ = file.write_text('{"means": {"mrr": 1}, "notes": []}')
        >>> read_json(file, Measured)
        {'means': {'mrr': 1}, 'notes': []}
    """
    with reading(str(path)):
        content = json.loads(path.read_text(encoding="utf-8"))
    try:
        kind.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise InputError(
            f"{path} is not what polyanchor writes: {where + ': ' if where else ''}{fault['msg']}, got "
            f"{str(fault['input'])[:60]!r}; put it back from a copy"
        ) from error
    assert isinstance(content, dict)  # as validated
    return content


class Written(BaseModel):
    """Required keys of a JSON file and their types; other versions may write more keys."""

    model_config = ConfigDict(extra="allow", strict=True)


class Measured(Written):
    """A report, see :func:`as_json`."""

    means: dict[str, float | None]
    notes: list[str]
    queries: int = 0
    gallery: int = 0
    undefined: int = 0
    sub: Measured | None = None


class Results(Written):
    """``results.json``."""

    test: Measured
    before: dict[str, Measured] = {}
    point: float = 1.0
    epoch: int = 0
    chosen_by: str = ""
    validation: dict[str, float | None] | None = None
    epochs: list[dict[str, float | None]] | None = None
    seconds: float | None = None
    config: dict[str, dict[str, Any]] = {}
    environment: dict[str, Any] = {}


class Finished(Results):
    """``results.json`` of a run that is compared with others."""

    seconds: float
    config: dict[str, dict[str, Any]]


class Before(Written):
    """``before.json``: form of the features -> its report, and -> its ``run.monitor`` on the validation classes."""

    test: dict[str, Measured]
    validation: dict[str, float | None] = {}


def read_before(path: Path) -> dict[str, Any]:
    """Read ``before.json``; raises as :func:`read_json` does."""
    return read_json(path, Before)


class SplitWritten(Written):
    """``split.json``."""

    train_classes: list[int]
    validation_classes: list[int]
    fingerprint: str
    contents: str
    source: str = ""
    test_classes: list[int] = []
    class_names: dict[str, str] = {}
    test_class_names: dict[str, str] = {}
    changed: bool = False


def is_lock(name: str) -> bool:
    """Whether a file of this name belongs to a lock, rather than to the folder's content."""
    return name in (_LOCK, _HOLDER)


def was_held(folder: Path) -> bool:
    """Whether a process uses a folder, or did."""
    return (folder / _LOCK).exists()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes during the block; the system releases the lock of a killed process.

    Args:
        folder: must exist. Reading it needs no lock.

    Raises:
        ValueError: another process holds the lock; the message names it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, held(Path(folder)):
        ...     sorted(file.name for file in Path(folder).iterdir())
        ['lock', 'lock.json']
    """
    lock, holder = FileLock(folder / _LOCK), folder / _HOLDER
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            f"{folder} is in use by {_owner(holder)}; wait until it has ended, stop it, or take another folder"
        ) from error
    try:
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        owner = {"pid": os.getpid(), "host": platform.node(), "since": since}
        with replacing(holder) as unfinished:
            unfinished.write_text(json.dumps(owner), encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _owner(holder: Path) -> str:
    with suppress(OSError, ValueError, KeyError):  # it is being written
        owner = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    return "another process"

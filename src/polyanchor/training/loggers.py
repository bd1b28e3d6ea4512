"""Lightning's loggers by name; by default all of them write into the run's folder alone.

Weights & Biases is offline unless ``WANDB_MODE`` is set, and MLflow writes to a database in the folder unless
``MLFLOW_TRACKING_URI`` is set. A resumed run goes on in the same run of both.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from polyanchor._io import replacing
from polyanchor._optional import load
from polyanchor.config.schema import Config

if TYPE_CHECKING:
    from PIL.Image import Image

PROJECT = "polyanchor"
_NEEDED = {"wandb": ("wandb",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}


def require_loggers(config: Config) -> None:
    """Refuse a logger whose package is not installed.

    Raises:
        MissingExtraError: names the pip command.
    """
    for name in config.run.loggers:
        for package in _NEEDED.get(name, ()):
            load(package, "loggers")


def make_loggers(config: Config, run: Path) -> list[Logger]:
    """The configured loggers, to each of which the configuration is written.

    Args:
        config: of the run.
        run: its folder; logs go to ``logs/``.
    """
    logs = run / "logs"
    makers: dict[str, Callable[[], Logger]] = {
        # a CSV logger deletes an existing file, so each start of a run has its own
        "csv": lambda: CSVLogger(logs, name="csv", version=f"part-{1 + len(list(logs.glob('csv/part-*')))}"),
        "tensorboard": lambda: TensorBoardLogger(logs, name="tensorboard", version="", default_hp_metric=False),
        "wandb": lambda: _wandb(logs, run.name),
        "mlflow": lambda: _mlflow(logs, run.name),
    }
    loggers = [makers[name]() for name in config.run.loggers]
    for logger in loggers:
        # MLflow refuses to overwrite parameters, and those of a resumed run may have changed
        if not (isinstance(logger, MLFlowLogger) and logger.experiment.get_run(logger.run_id).data.params):
            logger.log_hyperparams(config.model_dump(mode="json"))
    return loggers


def log_measures(loggers: Sequence[Logger], measures: Mapping[str, float], config: Config, *, step: int) -> None:
    """Log the metrics on the test classes.

    Args:
        loggers: open.
        measures: name -> value; logged as ``test/name``.
        config: for TensorBoard's table of runs, which shows both.
        step: of the chosen weights.
    """
    named = {f"test/{name}": value for name, value in measures.items()}
    for logger in loggers:
        logger.log_metrics(named, step)
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(config.model_dump(mode="json"), named)
        logger.save()


def log_picture(loggers: Sequence[Logger], name: str, picture: Image, *, step: int) -> None:
    """Log a picture to the loggers that take images."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            pixels = load("numpy", "train").asarray(picture)
            logger.experiment.add_image(name, pixels, step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(name, [picture], step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, picture, key=name, step=step)


@contextmanager
def closing(loggers: Sequence[Logger]) -> Iterator[None]:
    """Close the loggers at the end of the block, with the status of the block."""
    try:
        yield
    except BaseException:  # Ctrl-C too
        close(loggers, "failed")
        raise
    close(loggers, "success")


def close(loggers: Sequence[Logger], status: str) -> None:
    """Flush the loggers, and end the run that Weights & Biases has open in this process."""
    for logger in loggers:
        logger.finalize(status)
        if isinstance(logger, WandbLogger):
            # or the next run of this process would go on in this one
            load("wandb", "loggers").finish(exit_code=0 if status == "success" else 1)


def _wandb(logs: Path, name: str) -> Logger:
    wandb = load("wandb", "loggers")
    run_id = logs / "wandb" / "run-id"
    if not run_id.is_file():
        run_id.parent.mkdir(parents=True, exist_ok=True)
        with replacing(run_id) as unfinished:
            unfinished.write_text(secrets.token_hex(4), encoding="utf-8")
    return WandbLogger(
        name=name,
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        save_dir=logs,
        id=run_id.read_text(encoding="utf-8"),
        mode=os.environ.get("WANDB_MODE", "offline"),
        settings=wandb.Settings(console="off"),  # it would capture stdout, which is for results
    )


def _mlflow(logs: Path, name: str) -> Logger:
    folder = (logs / "mlflow").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    run_id = folder / "run-id"
    options: dict[str, Any] = {"run_name": name}
    if run_id.is_file():
        options = {"run_id": run_id.read_text(encoding="utf-8")}
    logger = MLFlowLogger(
        experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT),
        tracking_uri=uri or f"sqlite:///{(folder / 'mlflow.db').as_posix()}",
        artifact_location=None if uri else (folder / "artifacts").as_uri(),
        **options,
    )
    with replacing(run_id) as unfinished:
        unfinished.write_text(str(logger.run_id), encoding="utf-8")
    return logger

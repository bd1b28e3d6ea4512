"""Lightning's Trainer as this package uses it: loggers, callbacks, and what it need not say."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from polyanchor.training.config import Config
from polyanchor.training.run_folder import RunFolder


def make_trainer(config: Config, folder: RunFolder, callbacks: list[Callback]) -> Trainer:
    """The trainer of a run; its logs go into the run's folder."""
    run, optim = config.run, config.optim
    logs = folder.path / "logs"
    # a CSV logger deletes the file that it finds, so each start of a run has its own
    part = f"part-{1 + len(list(logs.glob('csv/part-*')))}"
    loggers: dict[str, Any] = {
        "csv": lambda: CSVLogger(logs, name="csv", version=part),
        "tensorboard": lambda: TensorBoardLogger(logs, name="tensorboard", version=""),
    }
    return Trainer(
        max_epochs=run.epochs,
        accelerator=run.accelerator,
        devices=1,
        precision=run.precision,
        gradient_clip_val=None if optim.clip == "none" else optim.clip_at,
        gradient_clip_algorithm=None if optim.clip == "none" else optim.clip,
        logger=[loggers[name]() for name in run.loggers],
        callbacks=callbacks,
        log_every_n_steps=10,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what Lightning says that a user of polyanchor can do nothing about."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # It cannot see that the batch sampler resumes inside an epoch, and advises more workers than cores.
            for message in ("dataloader is not resumable", "does not have many workers", "logging interval"):
                warnings.filterwarnings("ignore", message=f".*{message}.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated.*")  # lightning 2.6 on torch 2.15
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

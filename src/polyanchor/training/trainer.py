"""Lightning's Trainer as this package uses it, and what it need not say."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from polyanchor.training.checkpoint_file import CheckpointFiles
from polyanchor.training.config import Config


def make_trainer(config: Config, loggers: Sequence[Logger], callbacks: list[Callback]) -> Trainer:
    """The trainer of a run."""
    run, optim = config.run, config.optim
    return Trainer(
        max_epochs=run.epochs,
        accelerator=run.accelerator,
        devices=1,
        precision=run.precision,
        gradient_clip_val=None if optim.clip == "none" else optim.clip_at,
        gradient_clip_algorithm=None if optim.clip == "none" else optim.clip,
        logger=list(loggers),
        callbacks=callbacks,
        plugins=[CheckpointFiles()],
        log_every_n_steps=10,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what Lightning says that a user of polyanchor can do nothing about."""
    least = {"lightning.pytorch": logging.WARNING, "lightning.fabric": logging.WARNING, "mlflow": logging.WARNING}
    least["lightning.pytorch.loggers.mlflow"] = logging.ERROR  # that it makes the experiment, as there is none yet
    before = {name: logging.getLogger(name).level for name in least}
    for name, level in least.items():
        logging.getLogger(name).setLevel(level)
    try:
        with warnings.catch_warnings():
            # It cannot see that the batch sampler resumes inside an epoch, and advises more workers than cores.
            for message in ("dataloader is not resumable", "does not have many workers", "logging interval"):
                warnings.filterwarnings("ignore", message=f".*{message}.*")
            warnings.filterwarnings("ignore", message="MLFlow only allows")  # so recall@1 is recall1 there
            warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated.*")  # lightning 2.6 on torch 2.15
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)

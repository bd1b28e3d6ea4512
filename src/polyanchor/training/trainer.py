"""Lightning's Trainer as this package uses it, and what it need not say."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy

from polyanchor.distributed.ranks import Ranks
from polyanchor.training.checkpoint_file import CheckpointFiles
from polyanchor.training.config import Config


class _Joined(LightningEnvironment):
    """The processes are there already, and have found each other."""

    def __init__(self, ranks: Ranks, devices: int) -> None:
        super().__init__()
        self._ranks, self._devices = ranks, devices

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def world_size(self) -> int:
        return self._ranks.size

    def global_rank(self) -> int:
        return self._ranks.rank

    def local_rank(self) -> int:
        return self._ranks.rank % self._devices

    def node_rank(self) -> int:
        return self._ranks.rank // self._devices

    def teardown(self) -> None:
        """The group stays: the measuring after the training needs it."""


class _Strategy(DDPStrategy):
    """Lightning's, which leaves the process group to those that made it."""

    def __init__(self, config: Config, ranks: Ranks) -> None:
        batch = config.batches.classes * config.batches.images
        # a frozen backbone has no gradients, nor has any part of the network on a rank without items
        without = config.optim.warmup_epochs > 0 or config.data.on_bad_image == "skip" or batch < ranks.size
        super().__init__(
            cluster_environment=_Joined(ranks, config.run.devices),
            process_group_backend=dist.get_backend(),
            find_unused_parameters=without,
        )


def make_trainer(config: Config, loggers: Sequence[Logger], callbacks: list[Callback], ranks: Ranks) -> Trainer:
    """The trainer of a run, or of this process's part in it."""
    run, optim = config.run, config.optim
    return Trainer(
        max_epochs=run.epochs,
        accelerator=run.accelerator,
        devices=run.devices,
        num_nodes=run.nodes,
        strategy=_Strategy(config, ranks) if ranks.size > 1 else "auto",
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
            warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # all ranks log the same
            warnings.filterwarnings("ignore", message="MLFlow only allows")  # so recall@1 is recall1 there
            warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated.*")  # lightning 2.6 on torch 2.15
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)

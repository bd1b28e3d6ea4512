"""Lightning's Trainer as this package uses it, its warnings, and memory: kept by the allocator, checked beforehand."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from polyanchor._errors import InputError
from polyanchor.config.schema import Config
from polyanchor.datasets.items import Items
from polyanchor.distributed.comm import Ranks
from polyanchor.training.resume import CheckpointFiles

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # option numbers of mallopt(3)


class _Environment(LightningEnvironment):
    """The processes of a run, which have joined their group already."""

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
        """Keep the group for the evaluation after the training."""


class _Strategy(DDPStrategy):
    """DistributedDataParallel in the process group that exists already."""

    def __init__(self, config: Config, ranks: Ranks) -> None:
        batch = config.batches.classes_per_batch * config.batches.samples_per_class
        # a frozen backbone has no gradients, and a rank without items has none at all
        unused = config.optim.warmup_epochs > 0 or config.data.on_bad_image == "skip" or batch < ranks.size
        super().__init__(
            cluster_environment=_Environment(ranks, config.run.devices),
            process_group_backend=dist.get_backend(),
            find_unused_parameters=unused,
        )


def make_trainer(config: Config, loggers: Sequence[Logger], callbacks: list[Callback], ranks: Ranks) -> Trainer:
    """The trainer of a run, or of this rank of it."""
    run, optim = config.run, config.optim
    return Trainer(
        max_epochs=run.epochs,
        accelerator=run.accelerator,
        devices=run.devices,
        num_nodes=run.nodes,
        strategy=_Strategy(config, ranks) if ranks.size > 1 else "auto",
        precision=run.precision,
        gradient_clip_val=None if optim.clip == "none" else optim.clip_value,
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
    """Silence the messages of Lightning on which a user of polyanchor cannot act."""
    levels = {"lightning.pytorch": logging.WARNING, "lightning.fabric": logging.WARNING, "mlflow": logging.WARNING}
    levels["lightning.pytorch.loggers.mlflow"] = logging.ERROR  # that it creates the experiment
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        with warnings.catch_warnings():
            # it does not know that the batch sampler resumes within an epoch, and advises more workers than cores
            known = "dataloader is not resumable", "does not have many workers", "logging interval"
            for message in (*known, "in eval mode at the start of training"):  # frozen batch norms are, on purpose
                warnings.filterwarnings("ignore", message=f".*{message}.*")
            warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # all ranks log the same
            warnings.filterwarnings("ignore", message="MLFlow only allows")  # characters: recall@1 is recall1 there
            warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated.*")  # lightning 2.6 on torch 2.15
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for this process, until it ends; False where there is no glibc.

    Every step allocates the same large activations again. By default glibc returns them to the kernel, which clears
    every page before it gives it out again; that took as long as the step itself. Peak memory rises by some percent.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def require_room(config: Config, items: Items, *, dim: int | None = None) -> None:
    """Refuse a run if one of its tensors alone exceeds the machine's memory, before anything is allocated.

    Args:
        config: of the run.
        items: to train with.
        dim: columns that the loss sees; by default those of the embedding.

    Raises:
        InputError: names the tensor, its size and the keys to lower.
    """
    memory = _physical_memory()
    for name, size, keys in _tensor_sizes(config, items, dim or config.model.embedding_dim):
        if size > memory:
            raise InputError(
                f"{name} would take {size / 2**30:,.1f} GiB, and this machine has {memory / 2**30:,.1f} GiB; "
                f"lower {keys}"
            )


def _tensor_sizes(config: Config, items: Items, dim: int) -> list[tuple[str, int, str]]:
    """Name, bytes and configuration keys of the large tensors."""
    classes = len(items.classes)
    drawn = min(config.batches.classes_per_batch, classes) * config.batches.samples_per_class
    batch = drawn if config.batches.sampler == "balanced" else min(drawn, len(items))
    inputs = items.inputs
    each = inputs.shape[1] if isinstance(inputs, Tensor) else 3 * config.images.size**2
    processes = config.run.devices * config.run.nodes
    centres = classes * int(getattr(config.loss, "proxies_per_class", 1))
    own = centres // config.run.nodes if config.sharded else centres
    parts = [
        (
            "the inputs of a batch",
            4 * batch * each // processes,
            "batches.classes_per_batch, batches.samples_per_class or images.size",
        ),
        ("the embeddings of a batch", 4 * batch * dim, "batches.samples_per_class or model.embedding_dim"),
        # values, gradient and the two moments of the optimizer
        ("the proxies in training", 16 * own * dim, "loss.proxies_per_class or model.embedding_dim"),
        (
            "the similarities of a batch",
            4 * batch * own // processes,
            "loss.proxies_per_class or batches.samples_per_class",
        ),
    ]
    if isinstance(inputs, Tensor):
        parts.append(("the head in training", 16 * each * dim, "model.embedding_dim"))
    return parts


def _physical_memory() -> int:
    """In bytes; ``sys.maxsize`` where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return sys.maxsize

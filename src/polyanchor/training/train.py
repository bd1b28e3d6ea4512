"""The main job: from a configuration to a trained model and its measures on classes that never trained."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor

from polyanchor import __version__
from polyanchor.data.dataset import fingerprint
from polyanchor.evaluation.evaluate import evaluate_items, left_out
from polyanchor.training.callbacks import Checkpoints, ShowProgress, StopRequest
from polyanchor.training.config import Config
from polyanchor.training.environment import environment
from polyanchor.training.learner import Learner
from polyanchor.training.memory import keep_freed_memory
from polyanchor.training.resume import check_resume
from polyanchor.training.run_folder import RunFolder, as_json
from polyanchor.training.setup import (
    Parts,
    device_of,
    make_batches,
    make_loader,
    make_loss,
    make_model,
    make_transforms,
    open_parts,
)
from polyanchor.training.summary import Announce, describe
from polyanchor.types import RetrievalReport


def train(
    config: Config,
    out: str | Path,
    *,
    resume: bool = False,
    announce: Announce = lambda line: None,
    stop: StopRequest | None = None,
) -> RetrievalReport:
    """Train, choose the best epoch on held-out training classes, measure on the test classes, write it all down.

    Args:
        config: of the run; of a resumed one, what it was begun with.
        out: the run's folder, see :mod:`polyanchor.training.run_folder`; new, unless ``resume``.
        resume: go on from ``checkpoints/last.ckpt``, as if the run had not been interrupted; exactly so on a CPU.
        announce: receives lines about what is being done.
        stop: ends the run after the step under way, with a checkpoint, when a stop is requested; by default
            Ctrl-C during training is such a request.

    Returns:
        The measures on the test classes.

    Raises:
        Interrupted: a stop was requested; the checkpoint is written.
        ValueError: the configuration, the data or the checkpoint is not usable; says why.
    """
    begun = time.perf_counter()
    folder, stop = RunFolder(Path(out)), stop or StopRequest(announce)
    device_of(config)  # refuses an accelerator that there is not, before anything is written
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    keep_freed_memory()
    torch.manual_seed(config.run.seed)

    parts = open_parts(config)
    model = make_model(config, parts.train)
    train_view, test_view = make_transforms(config, model.statistics)
    classes = parts.train.classes
    loss = make_loss(config, len(classes))
    batches = make_batches(config, parts.train.labels)
    measure = partial(
        evaluate_items,
        transform=test_view,
        k=config.run.k,
        workers=config.data.workers,
        on_bad=config.data.on_bad_image,
        channels_last=config.run.channels_last,
    )
    validation = parts.validation
    learner = Learner(
        model,
        loss,
        config,
        classes=classes,
        steps_per_epoch=len(batches),
        validate=None
        if validation is None
        else partial(measure, test=validation, gallery=None, description="validating"),
    )
    split = _describe_split(config, parts)
    _fitting_cutoffs(config, parts)
    if resume:
        check_resume(folder, config, split)
    else:
        folder.begin()
    folder.write_config(config)
    folder.write_json(folder.split, split)
    checkpoint = folder.last if resume and folder.last.is_file() else None
    if resume and checkpoint is None:
        announce("no checkpoint has been written yet: beginning anew")
    for line in describe(config, parts, learner):
        announce(line)

    checkpoints = Checkpoints(
        folder.checkpoints,
        batches,
        monitor=None if validation is None else f"val/{config.run.select}",
        stop=stop,
        about={"version": __version__, "config": config.model_dump(mode="json"), "split": split},
    )
    loader = make_loader(config, parts.train, train_view, batches)
    with _quiet(), stop.listening():
        trainer = _trainer(config, folder, checkpoints, announce)
        trainer.fit(learner, loader, ckpt_path=checkpoint, weights_only=True)

    notes = learner.notes + ((left_out(sorted(learner.skipped), " in training"),) if learner.skipped else ())
    chosen = checkpoints.best_epoch if validation is not None else config.run.epochs - 1
    if validation is not None:
        state = torch.load(folder.best, map_location="cpu", weights_only=True)["state_dict"]
        learner.load_state_dict(state)
    folder.save_model(model, loss, classes)
    model.to(device_of(config))  # Lightning has put it back on the CPU
    report = measure(model, parts.split.test, parts.split.gallery, notes=parts.split.notes + notes)
    results: dict[str, Any] = {
        "test": as_json(report),
        "epoch": chosen + 1,
        "chosen_by": "last epoch" if validation is None else f"best {config.run.select} on validation classes",
        "validation": None if validation is None else {config.run.select: checkpoints.best},
        "seconds": round(time.perf_counter() - begun, 1),
        "config": config.model_dump(mode="json"),
        "environment": environment(),
    }
    folder.write_json(folder.results, results)
    return report


def _trainer(config: Config, folder: RunFolder, checkpoints: Checkpoints, announce: Announce) -> Trainer:
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
        callbacks=[ShowProgress(announce, f"val/{run.select}"), checkpoints],
        log_every_n_steps=10,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


@contextmanager
def _quiet() -> Iterator[None]:
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


def _describe_split(config: Config, parts: Parts) -> dict[str, Any]:
    held: Tensor | None = None if parts.validation is None else parts.validation.classes
    everything = parts.split.train, parts.split.test, parts.split.gallery
    return {
        "source": parts.split.name,
        "fingerprint": "".join(fingerprint(items) for items in everything if items is not None),
        "train_classes": parts.train.classes.tolist(),
        "validation_classes": [] if held is None else held.tolist(),
        "seed": config.run.seed,
        "notes": list(parts.split.notes),
    }


def _fitting_cutoffs(config: Config, parts: Parts) -> None:
    """Refuse, before hours of training, a cut-off that the measuring after them would refuse."""
    split, held = parts.split, parts.validation
    sizes = {"test classes": len(split.test) - 1 if split.gallery is None else len(split.gallery)}
    if held is not None:
        sizes["validation classes"] = len(held) - 1
    name, size = min(sizes.items(), key=lambda entry: entry[1])
    if max(config.run.k) > size:
        raise ValueError(
            f"run.k must be at most {size}, as many items as there are to find something in among the {name}, "
            f"got {max(config.run.k)}"
        )

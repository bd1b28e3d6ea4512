"""The training itself: from a configuration to the weights of the best epoch. The test classes are not looked at."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch import Tensor

from polyanchor import __version__
from polyanchor._errors import InputError
from polyanchor.data.contents import contents
from polyanchor.data.dataset import ItemDataset, fingerprint
from polyanchor.data.items import Items
from polyanchor.data.transforms import Transform
from polyanchor.distributed.ranks import Ranks
from polyanchor.distributed.sharded_loss import ShardedMultiProxyAnchorLoss
from polyanchor.evaluation.embed import embed
from polyanchor.evaluation.evaluate import evaluate_items, left_out
from polyanchor.models.embedding import EmbeddingModel
from polyanchor.training import sharded_proxies
from polyanchor.training.callbacks import Checkpoints, ShowProgress
from polyanchor.training.checkpoint_file import to_resume_from
from polyanchor.training.config import Config
from polyanchor.training.device import device_of
from polyanchor.training.failures import explained
from polyanchor.training.heads import require_openable
from polyanchor.training.held import held, was_held
from polyanchor.training.history import History
from polyanchor.training.joining import joined
from polyanchor.training.learner import Learner
from polyanchor.training.loggers import close, make_loggers, require_loggers
from polyanchor.training.memory import keep_freed_memory, require_room
from polyanchor.training.not_finite import FiniteSteps
from polyanchor.training.pictures import Pictures
from polyanchor.training.resume import check_resume
from polyanchor.training.run_folder import RunFolder, write_json
from polyanchor.training.setup import (
    Parts,
    make_batches,
    make_loader,
    make_loss,
    make_model,
    make_transforms,
    open_parts,
)
from polyanchor.training.stopping import StopRequest
from polyanchor.training.summary import Announce, describe
from polyanchor.training.trainer import make_trainer, quiet


@dataclass(frozen=True)
class Fitted:
    """A trained model and how it was chosen.

    Attributes:
        parts: the data.
        learner: model and loss, with the weights of the chosen epoch, on the CPU.
        epoch: the chosen epoch, from 0.
        validation: its measure ``run.select`` on the held-out training classes; None if there are none.
        notes: for the reader of the numbers.
        epochs: what each was like, see :class:`~polyanchor.training.history.History`.
        loggers: still open: the measures on the test classes go there too.
        seconds_before: that the run had taken up to the checkpoint it was resumed from.
    """

    parts: Parts
    learner: Learner
    epoch: int
    validation: float | None
    notes: tuple[str, ...]
    epochs: list[dict[str, float]]
    loggers: Sequence[Logger]
    seconds_before: float


def fit(
    config: Config,
    folder: RunFolder,
    *,
    resume: bool = False,
    announce: Announce = lambda line: None,
    stop: StopRequest | None = None,
    callbacks: Sequence[Callback] = (),
    ranks: Ranks | None = None,
    holding: ExitStack | None = None,
) -> Fitted:
    """Train and choose the best epoch on held-out training classes.

    Args:
        config: see :func:`~polyanchor.training.train.train`, as for the rest and the errors.
        folder: likewise.
        resume: likewise.
        announce: likewise.
        stop: likewise.
        callbacks: of Lightning, beside our own.
        ranks: processes that train together, all of which call this; the first one alone writes and announces.
        holding: keeps the folder locked for as long as it is open; by default for the training alone.
    """
    if ranks is None or holding is None:
        given: dict[str, Any] = {"resume": resume, "announce": announce, "stop": stop, "callbacks": callbacks}
        with ExitStack() as stack:
            ranks = ranks or stack.enter_context(joined(config))
            return fit(config, folder, ranks=ranks, holding=holding or stack.enter_context(ExitStack()), **given)
    if not ranks.first:
        announce = _nothing
    stop = stop or StopRequest(announce)
    _prepare(config)
    parts = open_parts(config)
    config, cut = _fitting_cutoffs(config, parts)
    require_room(config, parts.train)
    model = make_model(config, parts.train)
    config = _with_pooling(config, model)
    train_view, test_view = make_transforms(config, model.statistics)
    classes = parts.train.classes
    loss = make_loss(config, len(classes), ranks)
    if ranks.rank:  # what is drawn from here on, by dropout, differs from rank to rank
        torch.manual_seed(int(torch.randint(2**62, (ranks.rank,))[-1]))
    batches = make_batches(config, parts.train.labels, ranks)
    validation = parts.validation
    learner = Learner(
        model,
        loss,
        config,
        classes=classes,
        batch_items=batches.size,
        steps_per_epoch=len(batches),
        ranks=ranks,
        validate=None
        if validation is None
        else partial(measuring(config, test_view, ranks), test=validation, gallery=None, description="validating"),
    )
    if config.run.precision == "64-true":
        learner.double()  # Lightning does so too, but after a checkpoint was read, which it would round
    split = _describe_split(config, parts)
    _same_data(ranks, split)
    if config.data.on_bad_image == "stop":
        require_openable(parts.split, ranks)
    checkpoint, split = ranks.on_first(
        partial(_begin, config, folder, split, holding, resume=resume, announce=announce)
    )
    for line in describe(config, parts, learner, batches.size, cut):
        announce(line)

    checkpoints = Checkpoints(
        folder.checkpoints,
        batches,
        monitor=None if validation is None else f"val/{config.run.select}",
        stop=stop,
        minutes=config.run.checkpoint_minutes,
        about={"version": __version__, "config": config.model_dump(mode="json"), "split": split},
        ranks=ranks,
    )
    loader = make_loader(config, parts.train, train_view, batches)
    history, finite = History(loss), FiniteSteps(folder, cast(ItemDataset, loader.dataset), batches, ranks)
    gc.collect()  # trainer and learner of a run before refer to each other, and hold its data
    watching = [*callbacks, finite, ShowProgress(announce, f"val/{config.run.select}"), history, checkpoints]
    if config.run.log_images:
        drawn = partial(embed, description="pictures", **_reading(config, test_view))
        watching.insert(0, Pictures(config.run.log_images, parts, drawn, folder.path / "logs" / "pictures"))
    with quiet(), stop.listening(), finite.explained(), explained(folder.path):
        loggers = make_loggers(config, folder.path) if ranks.first else []
        try:
            trainer = make_trainer(config, loggers, watching, ranks)
            trainer.fit(learner, loader, ckpt_path=checkpoint, weights_only=True)
        except BaseException:
            close(loggers, "failed")
            raise

    skipped = sorted(set().union(*ranks.of_all(learner.skipped)))
    notes = model.notes + learner.notes + ((left_out(skipped, " in training"),) if skipped else ())
    notes += ("some items changed while the run was interrupted",) if split.get("changed") else ()
    before = checkpoints.seconds_before
    if validation is None:
        return Fitted(parts, learner, config.run.epochs - 1, None, notes, history.rows, loggers, before)
    _take_best(folder, learner)
    return Fitted(parts, learner, checkpoints.best_epoch, checkpoints.best, notes, history.rows, loggers, before)


def _with_pooling(config: Config, model: EmbeddingModel) -> Config:
    """A run says what ``auto`` came to."""
    if config.model.backbone == "none":
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"pooling": model.pooling})})


def _prepare(config: Config) -> None:
    """Refuse what this machine lacks, before anything is written; then set threads, memory and seed."""
    device_of(config)
    require_loggers(config)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    keep_freed_memory()
    torch.manual_seed(config.run.seed)


def _take_best(folder: RunFolder, learner: Learner) -> None:
    best = torch.load(folder.best, map_location="cpu", weights_only=True)
    if isinstance(learner.loss, ShardedMultiProxyAnchorLoss):
        sharded_proxies.load(folder.checkpoints / best[sharded_proxies.KEY], learner.loss)
        sharded_proxies.put_in(best, learner.loss)
    learner.load_state_dict(best["state_dict"])


def _nothing(line: str) -> None:
    """What ranks other than the first announce."""


def _begin(
    config: Config,
    folder: RunFolder,
    split: dict[str, Any],
    holding: ExitStack,
    *,
    resume: bool,
    announce: Announce,
) -> tuple[Path | None, dict[str, Any]]:
    """Lock the folder and begin it, or look whether its run can go on, and from which checkpoint."""
    if resume:
        folder.read_config()  # refuses what is no run
    elif not was_held(folder.path):  # a folder that holds something else gets no lock
        folder.begin()
    holding.enter_context(held(folder.path))
    checkpoint = to_resume_from(folder, announce) if resume else None
    if resume:
        split = split | {"changed": check_resume(folder, config, split, trained=checkpoint is not None)}
    else:
        folder.begin()
    folder.write_config(config)
    write_json(folder.split, split)
    if resume and checkpoint is None:
        announce("no checkpoint has been written yet: beginning anew")
    return checkpoint, split


def _same_data(ranks: Ranks, split: dict[str, Any]) -> None:
    """Refuse nodes whose copies of the data differ: their rows would stand for different items."""
    seen = ranks.of_all((split["fingerprint"], split["contents"]))
    other = [rank for rank, found in enumerate(seen) if found != seen[0]]
    if other:
        raise InputError(
            f"all processes must see the same items, got others of {split['source']} in process {other[0]} than in "
            "process 0; give each node a copy of the same data, or a shared folder"
        )


def measuring(config: Config, transform: Transform | None, ranks: Ranks | None = None) -> partial[Any]:
    """:func:`~polyanchor.evaluation.evaluate.evaluate_items` as the configuration wants it."""
    return partial(evaluate_items, k=config.run.k, ranks=ranks, **_reading(config, transform))


def _reading(config: Config, transform: Transform | None) -> dict[str, Any]:
    """How items that do not train are read."""
    return {
        "transform": transform,
        "workers": config.data.workers,
        "on_bad": config.data.on_bad_image,
        "channels_last": config.run.channels_last,
    }


def _describe_split(config: Config, parts: Parts) -> dict[str, Any]:
    out: Tensor | None = None if parts.validation is None else parts.validation.classes
    everything = parts.split.train, parts.split.test, parts.split.gallery, parts.split.validation
    return {
        "source": parts.split.name,
        "fingerprint": "".join(fingerprint(items) for items in everything if items is not None),
        "contents": "".join(contents(items) for items in everything if items is not None),
        "train_classes": parts.train.classes.tolist(),
        "validation_classes": [] if out is None else out.tolist(),
        "test_classes": parts.split.test.classes.tolist(),
        "class_names": _names(parts.split.train),
        "test_class_names": _names(parts.split.test),
        "seed": config.run.seed,
        "notes": list(parts.split.notes),
    }


def _names(items: Items) -> dict[str, str]:
    """Of the classes that occur and have one; the key is the class id, a text as JSON wants it."""
    return {str(number): items.class_names[number] for number in items.classes.tolist() if number in items.class_names}


def _fitting_cutoffs(config: Config, parts: Parts) -> tuple[Config, str]:
    """The configuration with cut-offs that the data allow, and what to say of it.

    Those that nobody asked for are cut to what fits. One that was asked for is refused, before hours of training.
    """
    split, validation = parts.split, parts.validation
    sizes = {"test classes": len(split.test) - 1 if split.gallery is None else len(split.gallery)}
    if validation is not None:
        sizes["validation classes"] = len(validation) - 1
    name, size = min(sizes.items(), key=lambda entry: entry[1])
    if max(config.run.k) <= size:
        return config, ""
    fits = tuple(k for k in config.run.k if k <= size)
    measured = config.run.select.partition("@")[2]
    if "k" in config.run.model_fields_set or not fits or (measured.isdigit() and int(measured) > size):
        raise InputError(
            f"run.k must be at most {size}, as many items as there are to find something in among the {name}, "
            f"got {max(config.run.k)}; --set run.k={list(fits) or [1]} fits"
        )
    run = config.run.model_copy(update={"k": fits})
    return config.model_copy(update={"run": run}), f"run.k is {fits}: the {name} have {size:,} items to search in"

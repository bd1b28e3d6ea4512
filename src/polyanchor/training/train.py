"""Training: from a configuration to a trained model, evaluated on classes that it has not seen."""

from __future__ import annotations

import gc
import time
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
from polyanchor._defaults import own_defaults
from polyanchor._errors import InputError
from polyanchor._io import user_path
from polyanchor._progress import progress
from polyanchor.config.builders import (
    Parts,
    device_of,
    embed_options,
    make_batches,
    make_loader,
    make_loss,
    make_model,
    make_transforms,
    open_parts,
    with_recipe,
)
from polyanchor.config.loading import load_config
from polyanchor.config.schema import Config
from polyanchor.datasets.benchmarks.digits import write_digits
from polyanchor.datasets.images import BadImageError, Images, in_threads, look_at_head
from polyanchor.datasets.items import Items, Split, content_digest
from polyanchor.datasets.loading import ItemDataset, listing_digest
from polyanchor.distributed.comm import Ranks
from polyanchor.models.embedding import EmbeddingModel
from polyanchor.runs.embed import embed
from polyanchor.runs.evaluate import evaluate_items, left_out
from polyanchor.runs.folder import RunFolder, as_json, held, was_held, write_json
from polyanchor.training.callbacks import SHARDS, Checkpoints, History, Pictures, ShowProgress
from polyanchor.training.launch import explained, is_rank, late_deaths_explained, on_devices, process_group, processes
from polyanchor.training.loggers import close, closing, log_measures, make_loggers, require_loggers
from polyanchor.training.module import Learner
from polyanchor.training.nan_guard import FiniteSteps
from polyanchor.training.resume import check_resume, to_resume_from
from polyanchor.training.start import Choice, choose_weights, prepare_start, set_reduction
from polyanchor.training.stopping import StopRequest
from polyanchor.training.summary import describe, environment
from polyanchor.training.trainer import keep_freed_memory, make_trainer, quiet, require_room
from polyanchor.types import Announce, RetrievalReport

_DEMO_SETTINGS = (
    # a tiny network from scratch on 32 x 32 pixels: some seconds an epoch on one core
    'model.backbone="test_resnet"',
    'model.weights=""',
    "model.embedding_dim=32",
    "images.size=32",
    "images.resize=36",
    'images.train="random-crop"',
    "images.flip=false",
    "data.val_share=0",
    "batches.classes_per_batch=5",
    "batches.samples_per_class=12",
    "loss.proxies_per_class=2",
    "optim.lr=1e-3",
    "optim.proxy_lr_mult=10",
)
_OPEN_BLOCK = 1024  # images between two updates of the progress bar


def silent(line: str) -> None:
    """Announce nothing."""


@own_defaults()
def train(
    config: Config,
    out: str | Path,
    *,
    resume: bool = False,
    announce: Announce = silent,
    stop: StopRequest | None = None,
) -> RetrievalReport:
    """Train, choose the best epoch on held-out training classes, evaluate on the test classes, write the run's folder.

    Args:
        config: of the run; of a resumed one, its own configuration.
        out: the run's folder, see :mod:`polyanchor.runs.folder`; new, unless ``resume``.
        resume: go on from ``checkpoints/last.ckpt`` as if the run had not been interrupted; bit-exact on a CPU.
        announce: receives lines about the progress.
        stop: a request ends the run after the current step, with a checkpoint; by default Ctrl-C during training is
            such a request.

    Returns:
        The metrics on the test classes.

    Raises:
        Interrupted: a stop was requested; the checkpoint is written.
        JobFailedError: the disk is full, a worker process was killed, memory ran out; says how to go on.
        DivergedError: the loss or a gradient is NaN or infinite; names the batch.
        ValueError: the configuration, the data or the checkpoint is not usable, or another process uses the folder;
            says why.
    """
    folder = user_path(out)
    if processes(config) == 1 or is_rank():
        return _train(config, folder, resume=resume, announce=announce, stop=stop)
    device_of(config)  # refuses a device that is not there, before processes are started
    stop = stop or StopRequest(announce)
    arguments = {"config": config, "out": folder, "resume": resume}
    report: RetrievalReport = on_devices(config, _train, arguments, announce=announce, stop=stop, folder=folder)
    return report


def _train(config: Config, out: Path, *, resume: bool, announce: Announce, stop: StopRequest | None) -> RetrievalReport:
    """:func:`train` in each process of the run."""
    begun, folder = time.perf_counter(), RunFolder(out)
    with late_deaths_explained(out), process_group(config) as ranks, ExitStack() as lock:
        fitted = _fit(config, folder, ranks, lock, resume=resume, announce=announce, stop=stop)
        learner, split = fitted.learner, fitted.parts.split
        config = learner.config  # with the cut-offs that the data allow
        with explained(folder.path), quiet(), closing(fitted.loggers):
            proxies = learner.loss.full_state_dict()
            ranks.run_on_rank0(lambda: folder.save_model(learner.model, proxies, fitted.parts.train.classes))
            model = learner.model.to(device_of(config))  # Lightning has moved it to the CPU
            options = embed_options(config, model.statistics) | {"k": config.run.k, "ranks": ranks}
            report = evaluate_items(model, split.test, split.gallery, notes=split.notes + fitted.notes, **options)
            log_measures(fitted.loggers, report.means, config, step=(fitted.epoch + 1) * learner.steps_per_epoch)
        last = fitted.validation is None
        results: dict[str, Any] = {
            "test": as_json(report),
            "before": fitted.before,
            "epoch": fitted.epoch + 1,
            "point": fitted.choice.point,
            "chosen_by": _chosen_by(config, fitted),
            "validation": None if last else {config.run.monitor: fitted.validation},
            "validation_before": fitted.validation_before,
            "epochs": fitted.epochs,
            "seconds": round(fitted.seconds_before + time.perf_counter() - begun, 1),
            "config": config.model_dump(mode="json"),
            "environment": environment(),
        }
        with explained(folder.path):
            ranks.run_on_rank0(partial(_write_results, folder, report, results))
        return report


def _chosen_by(config: Config, fitted: Fitted) -> str:
    """How the weights were chosen, in words."""
    point, judge = fitted.choice.point, f"best {config.run.monitor} on validation classes"
    if fitted.validation is None:
        judge = "last epoch"
    elif point == 0:
        return f"{judge}: the start, as no epoch was better"
    return judge if point == 1 else f"{judge}, weights {point:.0%} of the way from the start"


def _write_results(folder: RunFolder, report: RetrievalReport, results: dict[str, Any]) -> None:
    folder.save_per_query(report)
    write_json(folder.results, results)


@dataclass(frozen=True)
class Fitted:
    """A trained model and how its epoch was chosen.

    Attributes:
        parts: the data.
        learner: model and loss, with the weights of the chosen epoch, on the CPU.
        epoch: the chosen epoch, from 0.
        choice: the weights that were kept, and their metric ``run.monitor`` on the held-out training classes.
        before: the features before training on the test classes, see :class:`~polyanchor.training.start.Start`.
        validation_before: and on the validation classes.
        notes: for the reader of the numbers.
        epochs: a row per epoch, see :class:`~polyanchor.training.callbacks.History`.
        loggers: still open, for the metrics on the test classes.
        seconds_before: duration of the run up to the checkpoint it was resumed from.
    """

    parts: Parts
    learner: Learner
    epoch: int
    choice: Choice
    before: dict[str, Any]
    validation_before: dict[str, float | None]
    notes: tuple[str, ...]
    epochs: list[dict[str, float]]
    loggers: Sequence[Logger]
    seconds_before: float

    @property
    def validation(self) -> float | None:
        """``run.monitor`` of the kept weights on the held-out training classes; None if there are none."""
        return self.choice.validation


def fit(
    config: Config,
    folder: RunFolder,
    *,
    resume: bool = False,
    announce: Announce = silent,
    stop: StopRequest | None = None,
    callbacks: Sequence[Callback] = (),
) -> Fitted:
    """Train and choose the best epoch on held-out training classes; the first half of :func:`train`.

    Args:
        config: see :func:`train`, also for the errors.
        folder: of the run; locked during the training.
        resume: see :func:`train`.
        announce: see :func:`train`.
        stop: see :func:`train`.
        callbacks: Lightning callbacks beside our own.
    """
    with process_group(config) as ranks, ExitStack() as lock:
        return _fit(config, folder, ranks, lock, resume=resume, announce=announce, stop=stop, callbacks=callbacks)


def _fit(
    config: Config,
    folder: RunFolder,
    ranks: Ranks,
    lock: ExitStack,
    *,
    resume: bool,
    announce: Announce,
    stop: StopRequest | None,
    callbacks: Sequence[Callback] = (),
) -> Fitted:
    """:func:`fit` in each process of the run; ``lock`` keeps the folder locked until it is closed."""
    if not ranks.first:
        announce = silent
    stop = stop or StopRequest(announce)
    _prepare(config)
    parts = open_parts(config)
    config, cutoff_note = _fitting_cutoffs(with_recipe(config), parts)
    require_room(config, parts.train)
    model = make_model(config, parts.train)
    config = _resolved(config, model)
    require_room(config, parts.train, dim=model.train_dim)
    classes = parts.train.classes
    loss = make_loss(config, len(classes), ranks, dim=model.train_dim)
    if ranks.rank:  # from here on random numbers, those of dropout, differ from rank to rank
        torch.manual_seed(int(torch.randint(2**62, (ranks.rank,))[-1]))
    batches = make_batches(config, parts.train.labels, ranks)
    validation, options = parts.validation, embed_options(config, model.statistics)
    validate = partial(evaluate_items, gallery=None, k=config.run.k, description="validating", ranks=ranks, **options)
    learner = Learner(
        model,
        loss,
        config,
        classes=classes,
        batch_items=batches.size,
        steps_per_epoch=len(batches),
        ranks=ranks,
        validate=None if validation is None else partial(validate, test=validation),
    )
    if config.run.precision == "64-true":
        learner.double()  # Lightning does so too, but after reading a checkpoint, which it would round
    split = _describe_split(config, parts)
    _same_data(ranks, split)
    if config.data.on_bad_image == "stop":
        require_openable(parts.split, ranks)
    checkpoint, split = ranks.run_on_rank0(
        partial(_begin, config, folder, split, lock, resume=resume, announce=announce)
    )
    for line in describe(config, parts, learner, batches.size, cutoff_note):
        announce(line)
    with explained(folder.path):
        start = prepare_start(
            config,
            folder,
            learner,
            parts,
            options=options,
            ranks=ranks,
            resumed=checkpoint is not None,
            announce=announce,
        )
    checkpoints = Checkpoints(
        folder.checkpoints,
        batches,
        monitor=None if validation is None else f"val/{config.run.monitor}",
        stop=stop,
        minutes=config.run.checkpoint_minutes,
        about={"version": __version__, "config": config.model_dump(mode="json"), "split": split},
        ranks=ranks,
    )
    loader = make_loader(config, parts.train, make_transforms(config, model.statistics)[0], batches)
    history, finite = History(loss), FiniteSteps(folder, cast(ItemDataset, loader.dataset), batches, ranks)
    gc.collect()  # trainer and learner of an earlier run refer to each other, and hold its data
    used = [*callbacks, finite, ShowProgress(announce, f"val/{config.run.monitor}"), history, checkpoints]
    if config.run.log_images:
        embed_pictures = partial(embed, description="pictures", **options)
        used.insert(0, Pictures(config.run.log_images, parts, embed_pictures, folder.path / "logs" / "pictures"))
    with quiet(), stop.listening(), finite.explained(), explained(folder.path):
        loggers = make_loggers(config, folder.path) if ranks.first else []
        try:
            trainer = make_trainer(config, loggers, used, ranks)
            trainer.fit(learner, loader, ckpt_path=checkpoint, weights_only=True)
        except BaseException:  # Ctrl-C too
            close(loggers, "failed")
            raise

    skipped = sorted(set().union(*ranks.all_gather_object(learner.skipped)))
    notes = model.notes + learner.notes + ((left_out(skipped, " in training"),) if skipped else ())
    notes += ("some items changed while the run was interrupted",) if split.get("changed") else ()
    epoch, best = config.run.epochs - 1, None
    if validation is not None:
        _load_best(folder, learner)
        epoch, best = checkpoints.best_epoch, checkpoints.best
    with explained(folder.path):
        reduce = partial(set_reduction, config, items=parts.train, options=options, ranks=ranks)
        choice = choose_weights(config, learner, start, best, reduce, announce=announce)
    return Fitted(
        parts,
        learner,
        epoch,
        choice,
        start.before,
        start.validation,
        notes,
        history.rows,
        loggers,
        checkpoints.seconds_before,
    )


def _prepare(config: Config) -> None:
    """Refuse what this machine lacks, before anything is written; then set threads, memory and seed."""
    device_of(config)
    require_loggers(config)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    keep_freed_memory()
    torch.manual_seed(config.run.seed)


def _resolved(config: Config, model: EmbeddingModel) -> Config:
    """The configuration with what the model made of it, which a run records."""
    changes: dict[str, Any] = {} if model.backbone is None else {"pooling": model.pooling}
    if model.head is None:
        changes["embedding_dim"] = min(config.model.embedding_dim, model.features)
    return config.model_copy(update={"model": config.model.model_copy(update=changes)})


def _fitting_cutoffs(config: Config, parts: Parts) -> tuple[Config, str]:
    """The configuration with cut-offs that the data allow, and a note if some were dropped.

    Default cut-offs that do not fit are dropped; one that was configured is refused, before hours of training.
    """
    split, validation = parts.split, parts.validation
    sizes = {"test classes": len(split.test) - 1 if split.gallery is None else len(split.gallery)}
    if validation is not None:
        sizes["validation classes"] = len(validation) - 1
    name, size = min(sizes.items(), key=lambda entry: entry[1])
    if max(config.run.k) <= size:
        return config, ""
    fits = tuple(k for k in config.run.k if k <= size)
    measured = config.run.monitor.partition("@")[2]
    if "k" in config.run.model_fields_set or not fits or (measured.isdigit() and int(measured) > size):
        raise InputError(
            f"run.k must be at most {size}, as many items as there are to find something in among the {name}, "
            f"got {max(config.run.k)}; --run.k '{list(fits) or [1]}' fits"
        )
    run = config.run.model_copy(update={"k": fits})
    return config.model_copy(update={"run": run}), f"run.k is {fits}: the {name} have {size:,} items to search in"


def _describe_split(config: Config, parts: Parts) -> dict[str, Any]:
    """The content of ``split.json``."""
    everything = parts.split.train, parts.split.test, parts.split.gallery, parts.split.validation
    return {
        "source": parts.split.name,
        "fingerprint": "".join(listing_digest(items) for items in everything if items is not None),
        "contents": "".join(content_digest(items) for items in everything if items is not None),
        "train_classes": parts.train.classes.tolist(),
        "validation_classes": [] if parts.validation is None else parts.validation.classes.tolist(),
        "test_classes": parts.split.test.classes.tolist(),
        "class_names": _names(parts.split.train),
        "test_class_names": _names(parts.split.test),
        "seed": config.run.seed,
        "notes": list(parts.split.notes),
    }


def _names(items: Items) -> dict[str, str]:
    """Class id, a string for JSON -> name, for the classes that occur and have one."""
    return {str(number): items.class_names[number] for number in items.classes.tolist() if number in items.class_names}


def _begin(
    config: Config,
    folder: RunFolder,
    split: dict[str, Any],
    lock: ExitStack,
    *,
    resume: bool,
    announce: Announce,
) -> tuple[Path | None, dict[str, Any]]:
    """Lock the folder and begin a run, or check that its run can go on; the checkpoint, and what split.json says."""
    if resume:
        folder.read_config()  # refuses a folder that is no run
    elif not was_held(folder.path):  # no lock is left in a folder that holds something else
        folder.begin()
    lock.enter_context(held(folder.path))
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
    seen = ranks.all_gather_object((split["fingerprint"], split["contents"]))
    other = [rank for rank, digests in enumerate(seen) if digests != seen[0]]
    if other:
        raise InputError(
            f"all processes must see the same items, got others of {split['source']} in process {other[0]} than in "
            "process 0; give each node a copy of the same data, or a shared folder"
        )


def require_openable(split: Split, ranks: Ranks | None = None) -> None:
    """Open every image of every part, shared among the processes, and decode none.

    Raises:
        BadImageError: an image is missing, no image or too large; all ranks name the first and count the others.
    """
    ranks = ranks or Ranks()
    parts = [part.inputs for part in (split.train, split.test, split.gallery, split.validation) if part is not None]
    sources = {
        id(images): images for images in parts if not isinstance(images, Tensor)
    }  # a gallery may be the train part
    pairs = [(images, row) for images in sources.values() for row in range(len(images))]
    own, faults = pairs[ranks.rank :: ranks.size], list[str]()
    with progress("opening", total=len(own), unit="images") as advance:
        for start in range(0, len(own), _OPEN_BLOCK):
            block = own[start : start + _OPEN_BLOCK]
            faults += filter(None, in_threads(_fault, block, torch.get_num_threads()))
            advance(len(block))
    faults = [fault for those in ranks.all_gather_object(faults) for fault in those]
    if faults:
        more = f". {len(faults) - 1:,} more of {len(pairs):,} cannot be opened: see polyanchor data verify --images"
        raise BadImageError(faults[0] + more * (len(faults) > 1))


def _fault(image: tuple[Images, int]) -> str:
    try:
        look_at_head(*image)
    except BadImageError as error:
        return str(error)
    return ""


def _load_best(folder: RunFolder, learner: Learner) -> None:
    best = torch.load(folder.best, map_location="cpu", weights_only=True)
    if SHARDS in best:
        learner.loss.load_shards(folder.checkpoints / best[SHARDS])
    learner.loss.include_shards(best)
    learner.load_state_dict(best["state_dict"])


def run_demo(out: Path, *, epochs: int, announce: Announce) -> RetrievalReport:
    """Write ``out/digits`` (PNG files, a folder per class), train in ``out/run``, evaluate.

    Args:
        out: new folder.
        epochs: passes over the training digits.
        announce: receives lines about the progress.
    """
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; take another --out, or delete it")
    written = write_digits(out / "digits")
    announce(f"wrote {written} images of handwritten digits to {out / 'digits'}, a folder for each class")
    return train(demo_config(out / "digits", epochs=epochs), out / "run", announce=announce)


def demo_config(images: Path, *, epochs: int) -> Config:
    """The configuration of the demo on a folder of digits."""
    return load_config(settings=[*_DEMO_SETTINGS, f'data.source="folder:{images.as_posix()}"', f"run.epochs={epochs}"])

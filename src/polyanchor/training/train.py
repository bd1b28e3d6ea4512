"""The main job: from a configuration to a trained model and its measures on classes that never trained."""

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
    make_batches,
    make_loader,
    make_loss,
    make_model,
    make_transforms,
    open_parts,
)
from polyanchor.config.loading import load_config
from polyanchor.config.schema import Config
from polyanchor.datasets.benchmarks.digits import write_digits
from polyanchor.datasets.images import BadImageError, Images, in_threads, look_at_head
from polyanchor.datasets.items import Items, Split, content_digest
from polyanchor.datasets.loading import ItemDataset, listing_digest
from polyanchor.datasets.transforms import Transform
from polyanchor.distributed import sharded_proxies
from polyanchor.distributed.comm import Ranks
from polyanchor.distributed.sharded_loss import ShardedMultiProxyAnchorLoss
from polyanchor.distributed.sharded_proxies import whole
from polyanchor.models.embedding import EmbeddingModel
from polyanchor.runs.embed import embed
from polyanchor.runs.evaluate import evaluate_items, left_out
from polyanchor.runs.folder import History, RunFolder, as_json, held, was_held, write_json
from polyanchor.training.callbacks import Checkpoints, Pictures, ShowProgress
from polyanchor.training.launch import explained, is_rank, late_deaths_explained, on_devices, process_group, processes
from polyanchor.training.loggers import close, closing, log_measures, make_loggers, require_loggers
from polyanchor.training.module import Learner
from polyanchor.training.nan_guard import FiniteSteps
from polyanchor.training.resume import check_resume, to_resume_from
from polyanchor.training.stopping import StopRequest
from polyanchor.training.summary import describe, environment
from polyanchor.training.trainer import keep_freed_memory, make_trainer, quiet, require_room
from polyanchor.types import Announce, RetrievalReport

_AT_ONCE = 1024  # images between two steps of the bar


def require_openable(split: Split, ranks: Ranks | None = None) -> None:
    """Open every image of every part, each by one of the processes, and decode none.

    Raises:
        BadImageError: an image is missing, no image or too large; the first is named, on all ranks, and the others are
            counted.
    """
    ranks = ranks or Ranks()
    parts = [part.inputs for part in (split.train, split.test, split.gallery, split.validation) if part is not None]
    # a gallery may be the training part
    places = [(images, row) for images in _distinct(parts) for row in range(len(images))]
    own, found = places[ranks.rank :: ranks.size], list[str]()
    with progress("opening", total=len(own), unit="images") as advance:
        for begin in range(0, len(own), _AT_ONCE):
            block = own[begin : begin + _AT_ONCE]
            found += filter(None, in_threads(_fault, block, torch.get_num_threads()))
            advance(len(block))
    bad = [fault for faults in ranks.all_gather_object(found) for fault in faults]
    if bad:
        more = f". {len(bad) - 1:,} more of {len(places):,} cannot be opened: see polyanchor data verify --images"
        raise BadImageError(bad[0] + more * (len(bad) > 1))


def _distinct(parts: list[Images | Tensor]) -> list[Images]:
    return list({id(images): images for images in parts if not isinstance(images, Tensor)}.values())


def _fault(place: tuple[Images, int]) -> str:
    try:
        look_at_head(*place)
    except BadImageError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class Fitted:
    """A trained model and how it was chosen.

    Attributes:
        parts: the data.
        learner: model and loss, with the weights of the chosen epoch, on the CPU.
        epoch: the chosen epoch, from 0.
        validation: its measure ``run.monitor`` on the held-out training classes; None if there are none.
        notes: for the reader of the numbers.
        epochs: what each was like, see :class:`~polyanchor.runs.folder.History`.
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
            ranks = ranks or stack.enter_context(process_group(config))
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
    checkpoint, split = ranks.run_on_rank0(
        partial(_begin, config, folder, split, holding, resume=resume, announce=announce)
    )
    for line in describe(config, parts, learner, batches.size, cut):
        announce(line)

    checkpoints = Checkpoints(
        folder.checkpoints,
        batches,
        monitor=None if validation is None else f"val/{config.run.monitor}",
        stop=stop,
        minutes=config.run.checkpoint_minutes,
        about={"version": __version__, "config": config.model_dump(mode="json"), "split": split},
        ranks=ranks,
    )
    loader = make_loader(config, parts.train, train_view, batches)
    history, finite = History(loss), FiniteSteps(folder, cast(ItemDataset, loader.dataset), batches, ranks)
    gc.collect()  # trainer and learner of a run before refer to each other, and hold its data
    watching = [*callbacks, finite, ShowProgress(announce, f"val/{config.run.monitor}"), history, checkpoints]
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

    skipped = sorted(set().union(*ranks.all_gather_object(learner.skipped)))
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
    seen = ranks.all_gather_object((split["fingerprint"], split["contents"]))
    other = [rank for rank, found in enumerate(seen) if found != seen[0]]
    if other:
        raise InputError(
            f"all processes must see the same items, got others of {split['source']} in process {other[0]} than in "
            "process 0; give each node a copy of the same data, or a shared folder"
        )


def measuring(config: Config, transform: Transform | None, ranks: Ranks | None = None) -> partial[Any]:
    """:func:`~polyanchor.runs.evaluate.evaluate_items` as the configuration wants it."""
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
        "fingerprint": "".join(listing_digest(items) for items in everything if items is not None),
        "contents": "".join(content_digest(items) for items in everything if items is not None),
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
    measured = config.run.monitor.partition("@")[2]
    if "k" in config.run.model_fields_set or not fits or (measured.isdigit() and int(measured) > size):
        raise InputError(
            f"run.k must be at most {size}, as many items as there are to find something in among the {name}, "
            f"got {max(config.run.k)}; --run.k '{list(fits) or [1]}' fits"
        )
    run = config.run.model_copy(update={"k": fits})
    return config.model_copy(update={"run": run}), f"run.k is {fits}: the {name} have {size:,} items to search in"


@own_defaults()
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
        out: the run's folder, see :mod:`polyanchor.runs.folder`; new, unless ``resume``.
        resume: go on from ``checkpoints/last.ckpt``, as if the run had not been interrupted; exactly so on a CPU.
        announce: receives lines about what is being done.
        stop: ends the run after the step under way, with a checkpoint, when a stop is requested; by default
            Ctrl-C during training is such a request.

    Returns:
        The measures on the test classes.

    Raises:
        Interrupted: a stop was requested; the checkpoint is written.
        JobFailedError: the disk is full, a worker process was killed, memory ran out; says how to go on.
        DivergedError: the loss or a gradient is NaN or infinite; names the batch.
        ValueError: the configuration, the data or the checkpoint is not usable, or another process works in the
            folder; says why.
    """
    folder = user_path(out)
    stop = stop or StopRequest(announce)
    if processes(config) == 1 or is_rank():
        return _train(config, folder, resume=resume, announce=announce, stop=stop)
    device_of(config)  # refuses what there is not, before processes are started
    work = {"config": config, "out": folder, "resume": resume}
    report: RetrievalReport = on_devices(config, _train, work, announce=announce, stop=stop, folder=folder)
    return report


def _train(config: Config, out: Path, *, resume: bool, announce: Announce, stop: StopRequest) -> RetrievalReport:
    """In each process of the run."""
    with late_deaths_explained(out), process_group(config) as ranks, ExitStack() as holding:
        return _work(config, RunFolder(out), ranks, holding, resume=resume, announce=announce, stop=stop)


def _work(
    config: Config,
    folder: RunFolder,
    ranks: Ranks,
    holding: ExitStack,
    *,
    resume: bool,
    announce: Announce,
    stop: StopRequest,
) -> RetrievalReport:
    begun = time.perf_counter()
    fitted = fit(config, folder, resume=resume, announce=announce, stop=stop, ranks=ranks, holding=holding)
    learner, split = fitted.learner, fitted.parts.split
    config = learner.config  # with the cut-offs that the data allow
    with explained(folder.path), quiet(), closing(fitted.loggers):
        proxies = {name: whole(tensor) for name, tensor in learner.loss.state_dict().items()}
        ranks.run_on_rank0(lambda: folder.save_model(learner.model, proxies, fitted.parts.train.classes))
        model = learner.model.to(device_of(config))  # Lightning has put it back on the CPU
        measure = measuring(config, make_transforms(config, model.statistics)[1], ranks)
        report: RetrievalReport = measure(model, split.test, split.gallery, notes=split.notes + fitted.notes)
        log_measures(fitted.loggers, report.means, config, step=(fitted.epoch + 1) * learner.steps_per_epoch)
    results: dict[str, Any] = {
        "test": as_json(report),
        "epoch": fitted.epoch + 1,
        "chosen_by": "last epoch" if fitted.validation is None else f"best {config.run.monitor} on validation classes",
        "validation": None if fitted.validation is None else {config.run.monitor: fitted.validation},
        "epochs": fitted.epochs,
        "seconds": round(fitted.seconds_before + time.perf_counter() - begun, 1),
        "config": config.model_dump(mode="json"),
        "environment": environment(),
    }
    with explained(folder.path):
        ranks.run_on_rank0(partial(_write, folder, report, results))
    return report


def _write(folder: RunFolder, report: RetrievalReport, results: dict[str, Any]) -> None:
    folder.save_per_query(report)
    write_json(folder.results, results)


_SETTINGS = (
    # A tiny network from scratch on 32 x 32 pixels: some seconds an epoch on one core.
    'model.backbone="test_resnet"',
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


def demo_config(images: Path, *, epochs: int) -> Config:
    """The run of the demo on a folder of digits."""
    return load_config(settings=[*_SETTINGS, f'data.source="folder:{images.as_posix()}"', f"run.epochs={epochs}"])


def run_demo(out: Path, *, epochs: int, announce: Announce) -> RetrievalReport:
    """Write ``out/digits`` (PNG files, a folder a class), train in ``out/run``, measure.

    Args:
        out: new folder.
        epochs: passes over the training digits.
        announce: receives lines about what is being done.
    """
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; take another --out, or delete it")
    written = write_digits(out / "digits")
    announce(f"wrote {written} images of handwritten digits to {out / 'digits'}, a folder for each class")
    return train(demo_config(out / "digits", epochs=epochs), out / "run", announce=announce)

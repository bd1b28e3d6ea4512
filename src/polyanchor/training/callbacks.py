"""What happens around the steps: the place in the data, checkpoints, the progress bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from torch import Tensor

from polyanchor._io import replacing
from polyanchor._progress import Advance, progress
from polyanchor.config.builders import Parts
from polyanchor.datasets.items import Items
from polyanchor.datasets.loading import Batch
from polyanchor.datasets.samplers import EpochBatches
from polyanchor.distributed import sharded_proxies
from polyanchor.distributed.comm import Ranks
from polyanchor.distributed.sharded_loss import ShardedMultiProxyAnchorLoss
from polyanchor.distributed.sharded_proxies import whole
from polyanchor.losses.proxies import proxies_of
from polyanchor.training.loggers import log_picture
from polyanchor.training.module import Learner
from polyanchor.training.stopping import Interrupted, StopRequest
from polyanchor.types import Embeddings
from polyanchor.viz.scatter import COLOURS, plane
from polyanchor.viz.sheets import query_sheet

if TYPE_CHECKING:
    from PIL.Image import Image


class Checkpoints(Checkpoint):
    """Writes ``last.ckpt`` and ``best.ckpt``.

    The first after every epoch, within it every so many minutes and on request, the second when the validation measure
    improves. Beside Lightning's own state (weights with proxies, optimizer, schedule, loops) a checkpoint holds the
    place in the data and the state of the random generators. :mod:`polyanchor.training.resume` writes it.

    Args:
        folder: where the two files go.
        batches: the batch sampler, whose place is saved and restored.
        monitor: logged measure that decides; None takes no best.
        stop: looked at after every step and every epoch.
        minutes: between two checkpoints within an epoch; 0: none there.
        about: put into every checkpoint: what a reader needs to know to use it.
        ranks: processes that train together. A request to one of them stops all after the same step, and the first
            one's clock counts. A checkpoint holds the random generators of each; proxies that are spread over them
            lie in a folder beside it, which is there before the file that names it.

    Attributes:
        seconds_before: that the run had taken up to the checkpoint it was resumed from.
    """

    def __init__(
        self,
        folder: Path,
        batches: EpochBatches,
        *,
        monitor: str | None,
        stop: StopRequest,
        minutes: float,
        about: Mapping[str, Any],
        ranks: Ranks | None = None,
    ) -> None:
        self.ranks = ranks or Ranks()
        self._proxies: dict[str, str] = {}  # checkpoint -> folder of its proxies
        self._resumed: str | None = None
        self._writing = ""
        self.folder, self.batches, self.monitor, self.stop = folder, batches, monitor, stop
        self.minutes, self.about = minutes, dict(about)
        self._saved = self._begun = time.monotonic()
        self.seconds_before = 0.0
        self.best = float("-inf")
        self.best_epoch = -1
        self._place = batches.state_dict()
        self._generators: list[dict[str, torch.Tensor]] = []
        self._cuda: torch.device | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the random generators of a resumed run, after everything that draws while setting up."""
        self.stop.take()  # Lightning has put its own answer to SIGTERM, which ends the training unsaved, in front of it
        device = trainer.strategy.root_device
        if self.ranks.rank < len(self._generators):  # there may be more ranks than before
            generators = self._generators[self.ranks.rank]
            torch.set_rng_state(generators["cpu"])
            if device.type == "cuda" and "cuda" in generators:
                torch.cuda.set_rng_state(generators["cuda"], device)
        loss = getattr(pl_module, "loss", None)
        if self._resumed is not None and isinstance(loss, ShardedMultiProxyAnchorLoss):
            sharded_proxies.load(self.folder / self._resumed, loss, trainer.optimizers[0])
        self._cuda = device if device.type == "cuda" else None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A new epoch has a new order; a resumed one goes on inside its own."""
        self.batches.set_epoch(trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Save where the user asked to stop, or it is time to; the last batch ends in the epoch's own save."""
        self._place = {"epoch": trainer.current_epoch, "position": batch_idx + 1}
        asked = self.stop.made
        if batch_idx + 1 < len(self.batches):
            stop, save = self.ranks.all_max(asked, self.ranks.first and self._is_time())
            if stop or save:
                self._save(trainer, "last.ckpt")
            if stop:
                raise Interrupted

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save; keep the best."""
        self._place = {"epoch": self._place["epoch"] + 1, "position": 0}
        if self.monitor is not None:
            value = float(trainer.callback_metrics[self.monitor])
            if self.best_epoch < 0 or value > self.best:
                self.best = value if value == value else float("-inf")  # NaN is better than nothing, no more
                self.best_epoch = self._place["epoch"] - 1
                # Before last.ckpt, which says which epoch was best: killed in between, the epoch is done again.
                self._save(trainer, "best.ckpt")
        self._save(trainer, "last.ckpt")
        asked = self.stop.made
        if self._place["epoch"] < (trainer.max_epochs or 0) and self.ranks.all_max(asked)[0]:
            raise Interrupted

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["polyanchor"] = self.about
        if self._proxies:
            checkpoint[sharded_proxies.KEY] = self._proxies[self._writing]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._resumed = checkpoint.get(sharded_proxies.KEY)

    def state_dict(self) -> dict[str, Any]:
        generators = {"cpu": torch.get_rng_state()}
        if self._cuda is not None:
            generators["cuda"] = torch.cuda.get_rng_state(self._cuda)
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds_before + time.monotonic() - self._begun,
            "place": self._place,
            "generators": self.ranks.all_gather_object(generators),
            "proxies": self._proxies,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
        self._place, generators = state_dict["place"], state_dict["generators"]
        self._generators = [generators] if isinstance(generators, dict) else list(generators)  # once of one process
        self._proxies = dict(state_dict.get("proxies", {}))
        self.seconds_before = float(state_dict.get("seconds", 0.0))
        self.batches.load_state_dict(self._place)

    def _save(self, trainer: Trainer, name: str) -> None:
        loss = getattr(trainer.lightning_module, "loss", None)
        self._writing = name
        if isinstance(loss, ShardedMultiProxyAnchorLoss):
            folder = sharded_proxies.folder_name(trainer.global_step)
            if folder not in self._proxies.values() or name == "best.ckpt":
                sharded_proxies.save(self.folder / folder, loss, trainer.optimizers[0])
            self._proxies[name] = folder
        trainer.save_checkpoint(self.folder / name)
        if self._proxies and name == "last.ckpt" and self.ranks.first:
            sharded_proxies.tidy(self.folder, self._proxies.values())
        self._saved = time.monotonic()

    def _is_time(self) -> bool:
        return self.minutes > 0 and time.monotonic() - self._saved >= 60 * self.minutes


class ShowProgress(Checkpoint):
    """A bar for each epoch, and a line that stays.

    A Checkpoint by type because Lightning calls those, alone, after the validation of an epoch is logged.

    Args:
        announce: receives the lines.
        select: logged name of the measure that chooses the epoch.
    """

    def __init__(self, announce: Callable[[str], None], select: str) -> None:
        self.announce, self.select = announce, select
        self._stack = ExitStack()
        self._advance: Advance | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        epoch, steps = (
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
            int(trainer.num_training_batches),
        )
        if self._advance is None:  # the first batch here, of a new epoch or of one that is resumed
            self._advance = self._stack.enter_context(progress(epoch, total=steps, unit="batches", done=batch_idx))
        note = None
        if not outputs:
            note = "no image could be read"
        elif batch_idx % 10 == 0:  # to read the loss is to wait for the device
            note = f"loss {float(outputs['loss']):.3f}"
        self._advance(1, note=note)
        if batch_idx + 1 == steps:
            self._close()  # before the validation shows its own

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown = dict.fromkeys(("train/loss_epoch", "val/recall@1", "val/map@r", self.select))
        parts = [f"{name.removesuffix('_epoch')} {values[name]:.3f}" for name in shown if name in values]
        self.announce(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  " + "  ".join(parts))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    def _close(self) -> None:
        self._stack.close()
        self._advance = None


Embed = Callable[[torch.nn.Module, Items], tuple[Embeddings, tuple[str, ...]]]

QUERIES, NEIGHBOURS, PER_CLASS = 8, 8, 40


class Pictures(Callback):
    """Every so many epochs a picture or two, in ``logs/pictures/`` and in the loggers that take some.

    ``queries``: eight held-out items of as many classes as possible, searched among all held-out items; where there
    are held-out classes, of images. ``proxies``: forty items each of eight training classes, and those classes'
    proxies where the loss has some, on their first two principal axes. Test classes are not looked at. The training
    does not change: what is drawn draws nothing from a random generator that it uses.

    Args:
        every: epochs from one to the next.
        parts: the data.
        embed: model, items -> embeddings, names of images that could not be read.
        folder: where the files go.
    """

    def __init__(self, every: int, parts: Parts, embed: Embed, folder: Path) -> None:
        self.every, self.embed, self.folder = every, embed, folder
        self.validation, self.train = parts.validation, parts.train
        # the same ones each time: what changes from picture to picture is the model
        self.shown = spread(parts.train.classes, len(COLOURS))
        firsts = [(parts.train.labels == label).nonzero()[:PER_CLASS, 0] for label in self.shown]
        self.some = parts.train.subset(torch.cat(firsts))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.every:
            return
        assert isinstance(pl_module, Learner)
        proxies = proxies_of(pl_module.loss)
        if proxies is not None:
            proxies = whole(proxies.detach())  # where they are spread over ranks, each sends its own
        if not trainer.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        drawn = {"proxies": self._proxies(pl_module, proxies, epoch)}
        if self.validation is not None and not self.validation.is_vectors:
            drawn["queries"] = self._queries(pl_module, self.validation, epoch)
        for name, picture in drawn.items():
            with replacing(self.folder / f"{name}-{epoch:04d}.png") as unfinished:
                picture.save(unfinished, "PNG")
            log_picture(trainer.loggers, name, picture, step=trainer.global_step)

    def _queries(self, learner: Learner, held: Items, epoch: int) -> Image:
        found, skipped = self.embed(learner.model, held)
        items = held.without(skipped)
        queries = spread(items.labels.argsort(stable=True), QUERIES)  # of eight classes, or of those that there are
        title = f"epoch {epoch}: held-out training classes, each query among {len(items) - 1} items"
        return query_sheet(items, found, queries.tolist(), k=NEIGHBOURS, title=title)

    def _proxies(self, learner: Learner, proxies: Tensor | None, epoch: int) -> Image:
        found, _ = self.embed(learner.model, self.some)
        if proxies is not None:
            proxies = proxies.detach().cpu()[torch.searchsorted(learner.classes.cpu(), self.shown)]
        names = [self.train.class_names.get(label, f"class {label}") for label in self.shown.tolist()]
        title = f"epoch {epoch}: {len(names)} training classes and their proxies"
        return plane(found.vectors, torch.searchsorted(self.shown, found.labels), names, proxies, title=title)


def spread(values: Tensor, most: int) -> Tensor:
    """At most so many values, evenly spread.

    Example:
        >>> spread(torch.arange(10), 4).tolist()
        [0, 3, 6, 9]
    """
    if len(values) <= most:
        return values
    return values[torch.linspace(0, len(values) - 1, most).round().long()]

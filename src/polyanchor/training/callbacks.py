"""Lightning callbacks of a run: checkpoints, history, progress, pictures."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping
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
from polyanchor.distributed.comm import Ranks
from polyanchor.functional import unit_rows
from polyanchor.losses.base import EmbeddingLoss
from polyanchor.training.loggers import log_picture
from polyanchor.training.module import Learner
from polyanchor.training.stopping import Interrupted, StopRequest
from polyanchor.types import Announce, Embeddings
from polyanchor.viz.scatter import COLOURS, plane
from polyanchor.viz.sheets import query_sheet

if TYPE_CHECKING:
    from PIL.Image import Image

SHARDS = "proxies"  # key of a checkpoint: name of the folder beside it that holds its sharded proxies
HISTORY_PROXIES = 1_000  # whose movement the history records; more would cost memory and change its medians little
QUERIES, NEIGHBOURS, ITEMS_PER_CLASS = 8, 8, 40  # of a picture

Embed = Callable[[torch.nn.Module, Items], tuple[Embeddings, tuple[str, ...]]]


class Checkpoints(Checkpoint):
    """Writes ``last.ckpt`` and ``best.ckpt``.

    ``last.ckpt`` is written after every epoch, within an epoch every ``minutes``, and on a request to stop;
    ``best.ckpt`` when the monitored metric improves. Beside Lightning's own state (weights with proxies, optimizer,
    schedule, loops) a checkpoint holds the position in the data and the state of the random generators.
    :class:`polyanchor.training.resume.CheckpointFiles` writes it.

    Args:
        folder: of the two files.
        batches: the batch sampler, whose position is saved and restored.
        monitor: logged metric that chooses the best epoch; None writes no ``best.ckpt``.
        stop: checked after every step and every epoch.
        minutes: between two checkpoints within an epoch; 0: none.
        about: put into every checkpoint: what a reader needs to use it.
        ranks: processes that train together. A request to one of them stops all after the same step, and rank 0's clock
            counts. A checkpoint holds the random generators of each; sharded proxies lie in a folder beside it, which
            is written before the file that names it.

    Attributes:
        seconds_before: duration of the run up to the checkpoint it was resumed from.
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
        self._shards: dict[str, str] = {}  # checkpoint -> folder of its proxies
        self._resumed: str | None = None  # folder of the proxies to read
        self._writing = ""
        self.folder, self.batches, self.monitor, self.stop = folder, batches, monitor, stop
        self.minutes, self.about = minutes, dict(about)
        self._saved = self._begun = time.monotonic()
        self.seconds_before = 0.0
        self.best = float("-inf")
        self.best_epoch = -1
        self._position = batches.state_dict()
        self._generators: list[dict[str, torch.Tensor]] = []
        self._cuda: torch.device | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the random generators of a resumed run, after everything that draws while setting up."""
        self.stop.take()  # Lightning has replaced the handler of SIGTERM by its own, which stops without saving
        device = trainer.strategy.root_device
        if self.ranks.rank < len(self._generators):  # there may be more ranks than before
            generators = self._generators[self.ranks.rank]
            torch.set_rng_state(generators["cpu"])
            if device.type == "cuda" and "cuda" in generators:
                torch.cuda.set_rng_state(generators["cuda"], device)
        if self._resumed is not None:
            _loss(pl_module).load_shards(self.folder / self._resumed, trainer.optimizers[0])
        self._cuda = device if device.type == "cuda" else None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A new epoch has a new order; a resumed one goes on within its own."""
        self.batches.set_epoch(trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Save on a request to stop, or when it is time; after the last batch the epoch's own save follows."""
        self._position = {"epoch": trainer.current_epoch, "position": batch_idx + 1}
        requested = self.stop.made
        if batch_idx + 1 < len(self.batches):
            stop, save = self.ranks.all_max(requested, self.ranks.first and self._is_time())
            if stop or save:
                self._save(trainer, "last.ckpt")
            if stop:
                raise Interrupted

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, and keep the best."""
        self._position = {"epoch": self._position["epoch"] + 1, "position": 0}
        if self.monitor is not None:
            value = float(trainer.callback_metrics[self.monitor])
            if self.best_epoch < 0 or value > self.best:
                # NaN is better than no best epoch, and worse than any number
                self.best = value if value == value else float("-inf")
                self.best_epoch = self._position["epoch"] - 1
                # before last.ckpt, which names the best epoch: after a kill in between, the epoch is repeated
                self._save(trainer, "best.ckpt")
        self._save(trainer, "last.ckpt")
        requested = self.stop.made
        if self._position["epoch"] < (trainer.max_epochs or 0) and self.ranks.all_max(requested)[0]:
            raise Interrupted

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["polyanchor"] = self.about
        if self._shards:
            checkpoint[SHARDS] = self._shards[self._writing]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._resumed = checkpoint.get(SHARDS)

    def state_dict(self) -> dict[str, Any]:
        generators = {"cpu": torch.get_rng_state()}
        if self._cuda is not None:
            generators["cuda"] = torch.cuda.get_rng_state(self._cuda)
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds_before + time.monotonic() - self._begun,
            "place": self._position,
            "generators": self.ranks.all_gather_object(generators),
            "proxies": self._shards,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
        self._position, self._generators = state_dict["place"], state_dict["generators"]
        self._shards, self.seconds_before = dict(state_dict["proxies"]), state_dict["seconds"]
        self.batches.load_state_dict(self._position)

    def _save(self, trainer: Trainer, name: str) -> None:
        loss = _loss(trainer.lightning_module)
        self._writing = name
        if loss.mesh is not None:
            folder = f"proxies-{trainer.global_step:08d}"
            if folder not in self._shards.values() or name == "best.ckpt":
                loss.save_shards(self.folder / folder, trainer.optimizers[0])
            self._shards[name] = folder
        trainer.save_checkpoint(self.folder / name)
        if self._shards and name == "last.ckpt" and self.ranks.first:
            remove_unused_shards(self.folder, self._shards.values())
        self._saved = time.monotonic()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove what a process that ended right after its last checkpoint has left."""
        if self._shards and self.ranks.first:
            remove_unused_shards(self.folder, self._shards.values())

    def _is_time(self) -> bool:
        return self.minutes > 0 and time.monotonic() - self._saved >= 60 * self.minutes


def remove_unused_shards(checkpoints: Path, used: Iterable[str]) -> None:
    """Remove the folders of proxies that no checkpoint names."""
    for folder in checkpoints.glob("proxies-*"):
        if folder.name not in set(used):
            shutil.rmtree(folder, ignore_errors=True)


def _loss(module: LightningModule) -> EmbeddingLoss:
    assert isinstance(module, Learner)
    return module.loss


class History(Checkpoint):
    """One row per epoch, in the checkpoints and in ``results.json``.

    Keys: ``loss`` (mean over the steps), ``val/...`` (metrics on held-out classes), and for a loss with proxies
    ``proxy_turn``, the median angle in degrees between a proxy at the start and at the end of the epoch, and
    ``proxy_length``, their median length at its end.

    A ``Checkpoint`` by type, since Lightning calls those last, after the validation of an epoch is logged.

    Args:
        loss: whose proxies are measured.
    """

    def __init__(self, loss: EmbeddingLoss) -> None:
        self.loss = loss
        self.rows: list[dict[str, float]] = []
        self._before: Tensor | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._before is None:
            self._before = self._proxies()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {name: value for name, value in logged.items() if name.startswith("val/")}
        if "train/loss_epoch" in logged:
            row["loss"] = logged["train/loss_epoch"]
        now = self._proxies()
        if now is not None and self._before is not None:
            row["proxy_turn"] = float(angles(self._before, now).median())
            row["proxy_length"] = float(now.norm(dim=1).median())
        self.rows.append(row)
        self._before = now

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "before": self._before}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self._before = list(state_dict["rows"]), state_dict["before"]

    def _proxies(self) -> Tensor | None:
        proxies = self.loss.spaced_proxies(HISTORY_PROXIES)
        return None if proxies is None else proxies.cpu()


def angles(before: Tensor, after: Tensor) -> Tensor:
    r"""Angles between the rows of two matrices, ``(W,)`` in degrees.

    .. math:: 2 \arcsin \tfrac12 \lVert \hat a - \hat b \rVert

    which is exact for small angles too, unlike the inverse cosine.

    Args:
        before: ``(W, D)`` floating.
        after: ``(W, D)`` floating.

    Example:
        >>> angles(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        tensor([ 0., 45.])
    """
    chord = (unit_rows(before) - unit_rows(after)).norm(dim=1)
    return torch.rad2deg(2 * torch.asin((chord / 2).clamp(max=1)))


class ShowProgress(Checkpoint):
    """A progress bar for each epoch, and a line that stays. A ``Checkpoint`` by type as :class:`History` is.

    Args:
        announce: receives the lines.
        monitor: logged name of the metric that chooses the epoch.
    """

    def __init__(self, announce: Announce, monitor: str) -> None:
        self.announce, self.monitor = announce, monitor
        self._stack = ExitStack()
        self._advance: Advance | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        steps = int(trainer.num_training_batches)
        if self._advance is None:  # first batch of a new or a resumed epoch
            self._advance = self._stack.enter_context(progress(epoch, total=steps, unit="batches", done=batch_idx))
        note = None
        if not outputs:
            note = "no image could be read"
        elif batch_idx % 10 == 0:  # reading the loss waits for the device
            note = f"loss {float(outputs['loss']):.3f}"
        self._advance(1, note=note)
        if batch_idx + 1 == steps:
            self._close()  # before the validation shows its own

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown = dict.fromkeys(("train/loss_epoch", "val/recall@1", "val/map@r", self.monitor))
        parts = [f"{name.removesuffix('_epoch')} {values[name]:.3f}" for name in shown if name in values]
        self.announce(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  " + "  ".join(parts))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    def _close(self) -> None:
        self._stack.close()
        self._advance = None


class Pictures(Callback):
    """Draws pictures every few epochs, into ``logs/pictures/`` and the loggers that take images.

    ``queries``, if held-out images exist: eight held-out items of as many classes as possible, searched among all
    held-out items. ``proxies``: forty items of each of eight training classes, and the proxies of these classes where
    the loss has some, on their first two principal axes. Test classes are not used. The training does not change: its
    random generators are left alone.

    Args:
        every: epochs between two pictures.
        parts: the data.
        embed: model, items -> embeddings, names of images that could not be read.
        folder: of the files.
    """

    def __init__(self, every: int, parts: Parts, embed: Embed, folder: Path) -> None:
        self.every, self.embed, self.folder = every, embed, folder
        self.validation, self.train = parts.validation, parts.train
        # the same classes and items each time, so that pictures differ by the model alone
        self.classes = spread(parts.train.classes, len(COLOURS))
        rows = [(parts.train.labels == label).nonzero()[:ITEMS_PER_CLASS, 0] for label in self.classes]
        self.items = parts.train.subset(torch.cat(rows))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.every:
            return
        assert isinstance(pl_module, Learner)
        proxies = pl_module.loss.full_proxies()  # on all ranks, which send those that they share
        if not trainer.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        pictures = {"proxies": self._proxies(pl_module, proxies, epoch)}
        if self.validation is not None and not self.validation.is_vectors:
            pictures["queries"] = self._queries(pl_module, self.validation, epoch)
        for name, picture in pictures.items():
            with replacing(self.folder / f"{name}-{epoch:04d}.png") as unfinished:
                picture.save(unfinished, "PNG")
            log_picture(trainer.loggers, name, picture, step=trainer.global_step)

    def _queries(self, learner: Learner, held: Items, epoch: int) -> Image:
        embeddings, skipped = self.embed(learner.model, held)
        items = held.without(skipped)
        queries = spread(items.labels.argsort(stable=True), QUERIES)  # of as many classes as possible
        title = f"epoch {epoch}: held-out training classes, each query among {len(items) - 1} items"
        return query_sheet(items, embeddings, queries.tolist(), k=NEIGHBOURS, title=title)

    def _proxies(self, learner: Learner, proxies: Tensor | None, epoch: int) -> Image:
        embeddings, _ = self.embed(learner.model, self.items)
        if proxies is not None:
            proxies = proxies.cpu()[torch.searchsorted(learner.classes.cpu(), self.classes)]
        names = [self.train.class_names.get(label, f"class {label}") for label in self.classes.tolist()]
        title = f"epoch {epoch}: {len(names)} training classes and their proxies"
        return plane(
            embeddings.vectors, torch.searchsorted(self.classes, embeddings.labels), names, proxies, title=title
        )


def spread(values: Tensor, limit: int) -> Tensor:
    """At most ``limit`` of the values, evenly spaced.

    Example:
        >>> spread(torch.arange(10), 4).tolist()
        [0, 3, 6, 9]
    """
    if len(values) <= limit:
        return values
    return values[torch.linspace(0, len(values) - 1, limit).round().long()]

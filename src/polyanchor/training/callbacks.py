"""What happens around the steps: the place in the data, checkpoints, a request to stop, the progress bar."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from polyanchor._progress import Advance, progress
from polyanchor.data.dataset import Batch
from polyanchor.data.sampling import EpochBatches


class Interrupted(Exception):  # noqa: N818  (not an error: it was asked for)
    """The user asked to stop; a checkpoint has been written."""


class StopRequest:
    """Ctrl-C as a request: the step under way is finished and saved first. A second Ctrl-C stops at once.

    Args:
        announce: is told that the request was heard.
    """

    def __init__(self, announce: Callable[[str], None] = lambda line: None) -> None:
        self.announce = announce
        self.made = False

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Take SIGINT while the context lasts."""

        def ask(number: int, frame: object) -> None:
            if self.made:
                raise KeyboardInterrupt
            self.made = True
            self.announce("stopping after the step under way; Ctrl-C again stops at once")

        if threading.current_thread() is not threading.main_thread():  # signals come to the main thread alone
            yield self
            return
        before = signal.signal(signal.SIGINT, ask)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before)


class Checkpoints(Checkpoint):
    """Writes ``last.ckpt`` and ``best.ckpt``.

    The first after every epoch, within it every so many minutes and on request, the second when the validation measure
    improves. Beside Lightning's own state (weights with proxies, optimizer, schedule, loops) a checkpoint holds the
    place in the data and the state of the random generators. :mod:`polyanchor.training.checkpoint_file` writes it.

    Args:
        folder: where the two files go.
        batches: the batch sampler, whose place is saved and restored.
        monitor: logged measure that decides; None takes no best.
        stop: looked at after every step and every epoch.
        minutes: between two checkpoints within an epoch; 0: none there.
        about: put into every checkpoint: what a reader needs to know to use it.
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
    ) -> None:
        self.folder, self.batches, self.monitor, self.stop = folder, batches, monitor, stop
        self.minutes, self.about = minutes, dict(about)
        self._saved = time.monotonic()
        self.best = float("-inf")
        self.best_epoch = -1
        self._place = batches.state_dict()
        self._generators: dict[str, torch.Tensor] = {}
        self._cuda: torch.device | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the random generators of a resumed run, after everything that draws while setting up."""
        device = trainer.strategy.root_device
        if self._generators:
            torch.set_rng_state(self._generators["cpu"])
            if device.type == "cuda" and "cuda" in self._generators:
                torch.cuda.set_rng_state(self._generators["cuda"], device)
        self._cuda = device if device.type == "cuda" else None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A new epoch has a new order; a resumed one goes on inside its own."""
        if trainer.current_epoch != self.batches.epoch:
            self.batches.set_epoch(trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Save where the user asked to stop, or it is time to; the last batch ends in the epoch's own save."""
        self._place = {"epoch": trainer.current_epoch, "position": batch_idx + 1}
        stop = self.stop.made
        if batch_idx + 1 < len(self.batches) and (stop or self._is_time()):
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
        if self.stop.made and self._place["epoch"] < (trainer.max_epochs or 0):
            raise Interrupted

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["polyanchor"] = self.about

    def state_dict(self) -> dict[str, Any]:
        generators = {"cpu": torch.get_rng_state()}
        if self._cuda is not None:
            generators["cuda"] = torch.cuda.get_rng_state(self._cuda)
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "place": self._place,
            "generators": generators,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
        self._place, self._generators = state_dict["place"], state_dict["generators"]
        self.batches.load_state_dict(self._place)

    def _save(self, trainer: Trainer, name: str) -> None:
        trainer.save_checkpoint(self.folder / name)
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

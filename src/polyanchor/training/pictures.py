"""Pictures during training: held-out queries with what they find, and training classes with their proxies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from polyanchor._files import replacing
from polyanchor.data.items import Items
from polyanchor.evaluation.plane import COLOURS, plane
from polyanchor.evaluation.sheets import query_sheet
from polyanchor.losses.proxies import proxies_of
from polyanchor.training.learner import Learner
from polyanchor.training.loggers import log_picture
from polyanchor.training.setup import Parts
from polyanchor.training.sharded_proxies import whole
from polyanchor.types import Embeddings

if TYPE_CHECKING:
    from PIL.Image import Image

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

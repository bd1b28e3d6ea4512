"""Data sources as items under the names that an index keeps: paths of files, or the source and the name in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from polyanchor._errors import InputTypeError
from polyanchor._files import user_path
from polyanchor.data.columns import encodable
from polyanchor.data.images import BadImageError, ImageFiles, Images, Look, file_of
from polyanchor.data.items import Items
from polyanchor.data.sources import open_items
from polyanchor.data.vectors import SUFFIXES
from polyanchor.index.index import absolute, unit_vectors
from polyanchor.index.values import Entries

if TYPE_CHECKING:
    from PIL.Image import Image

    from polyanchor.deploy.embedder import Embedder


class _Renamed:
    """Images under other names."""

    def __init__(self, images: Images, names: Sequence[str]) -> None:
        self.images, self.names = images, names

    def __len__(self) -> int:
        return len(self.names)

    def name(self, row: int) -> str:
        return self.names[row]

    def read(self, row: int, look: Look | None = None) -> Image:
        return self.images.read(row, look)


def open_data(data: str, *, root: str | Path = "data", allow_partial: bool = False) -> Items:
    """All items of a data source, called as the index will know them.

    Args:
        data: a source as for :func:`polyanchor.data.sources.open_source`, an image file, or a file of vectors without
            ``features:`` before it. Images that lie right in ``folder:DIR`` have no class, and so has an image file.
        root: folder that holds the benchmark data sets.
        allow_partial: accept a copy of a benchmark that is not complete.

    Example:
        >>> open_data("digits").name(0)
        'digits#0/0000'
    """
    if is_vectors(data):
        data = f"features:{data}"
    elif Path(data).is_file():
        encodable([absolute(data)], what="an image file")
        return renamed(Items(ImageFiles(Path(), [data]), torch.zeros(1, dtype=torch.int64), {0: ""}), data)
    return renamed(open_items(data, root=root, allow_partial=allow_partial, unclassed=True), data)


def is_vectors(file: str) -> bool:
    """Whether the name is that of a file of vectors."""
    return Path(file).suffix.lower() in SUFFIXES and not file.startswith("features:")


def renamed(items: Items, data: str) -> Items:
    """The items under the names that an index keeps.

    An image file: its absolute path. Vectors with names: these. Anything else: ``SOURCE#NAME``, followed by
    ``[ROW]`` where the source gives a name twice.

    Args:
        items: of the source.
        data: the source.
    """
    inputs = items.inputs
    kind, colon, place = data.partition(":")
    source = f"{kind}:{user_path(place).absolute()}" if colon else data
    if isinstance(inputs, Tensor):
        return replace(items, names=items.names or tuple(f"{source}#{row}" for row in range(len(items))))
    names = [inputs.name(row) for row in range(len(items))]
    times = Counter(names)
    for row, name in enumerate(names):
        file = file_of(inputs, row)
        again = f"[{row}]" if times[name] > 1 else ""
        names[row] = absolute(file) if file is not None else f"{source}#{name}{again}"
    return replace(items, inputs=_Renamed(inputs, names))


def embedded(
    items: Items, model: Embedder | None, *, on_bad: Literal["stop", "skip"] = "stop", workers: int = 0
) -> tuple[Entries, tuple[str, ...]]:
    """What to put into an index, and the images that could not be read.

    Args:
        items: as :func:`renamed` gives them.
        model: None for vectors that are to be indexed as they are.
        on_bad: ``"stop"`` or ``"skip"``: what an image that cannot be read does.
        workers: processes that decode.

    Raises:
        BadImageError: an image cannot be read and ``on_bad`` is ``"stop"``.
        TypeError: images for an index of vectors, or a model that takes the other kind.
    """
    skipped: tuple[str, ...] = ()
    if model is None:
        if not isinstance(items.inputs, Tensor):
            raise InputTypeError(
                "an index without a model takes features:FILE, got images; make it with a model's folder"
            )
        vectors, labels, names = unit_vectors(items.inputs, items.inputs.shape[1]), items.labels, items.names
    else:
        found, skipped = model.embed_items(items, on_bad=on_bad, workers=workers)
        vectors, labels, names = found.vectors, found.labels, found.names
    texts = [items.class_names.get(label, str(label)) or None for label in labels.tolist()]
    return Entries(vectors, list(names), texts), skipped


def joined(parts: Sequence[Entries]) -> Entries:
    """All entries, in order."""
    if len(parts) == 1:  # vectors may fill a good part of the memory: no copy
        return parts[0]
    return Entries(
        torch.cat([part.vectors for part in parts]),
        [path for part in parts for path in part.paths],
        [label for part in parts for label in part.labels],
    )


class Pictures:
    """The images behind the paths of an index, read when they are wanted."""

    def __init__(self) -> None:
        self._sources: dict[str, tuple[Items, dict[str, int]]] = {}

    def read(self, path: str) -> Image:
        """The image.

        Raises:
            BadImageError: there is none, or it cannot be read.
        """
        source, mark, _ = path.partition("#")
        if not mark or Path(path).is_file():
            return ImageFiles(Path(), [path]).read(0)
        if source not in self._sources:
            try:
                items = open_data(source)
            except (OSError, ValueError) as error:
                raise BadImageError.of(path, str(error)) from error
            self._sources[source] = items, {items.name(row): row for row in range(len(items))}
        items, rows = self._sources[source]
        if path not in rows or isinstance(items.inputs, Tensor):
            raise BadImageError.of(path, "the source has no such image")
        return items.inputs.read(rows[path])

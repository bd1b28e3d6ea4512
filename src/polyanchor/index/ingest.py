"""Embed data sources into an index, and search it with files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError, InputTypeError
from polyanchor._io import user_path
from polyanchor.config.builders import open_parts
from polyanchor.datasets.formats._tables import encodable
from polyanchor.datasets.images import BadImageError, ImageFiles, Images, Look, file_of
from polyanchor.datasets.items import Items
from polyanchor.datasets.sources import open_items
from polyanchor.datasets.spec import VECTOR_SUFFIXES as SUFFIXES
from polyanchor.index.index import Index, about_of, absolute, unit_vectors
from polyanchor.index.types import About, Added, Entries, Hit
from polyanchor.runs.folder import RunFolder
from polyanchor.runs.load import PARTS, part_of

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
    """All items of a data source, under the names that an index keeps.

    Args:
        data: a source as for :func:`polyanchor.datasets.sources.open_source`, an image file, or a file of vectors
            without ``features:`` before it. An image file, and images directly in ``folder:DIR``, have no class.
        root: folder that holds the benchmark data sets.
        allow_partial: accept an incomplete copy of a benchmark.

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
    """Whether the name is that of a file of vectors, by its suffix."""
    return Path(file).suffix.lower() in SUFFIXES and not file.startswith("features:")


def renamed(items: Items, data: str) -> Items:
    """The items under the names that an index keeps.

    For an image file its absolute path, for vectors with names these, for anything else ``SOURCE#NAME``, followed by
    ``[ROW]`` where a name is not unique.

    Args:
        items: of the source.
        data: the source.
    """
    inputs = items.inputs
    kind, colon, path = data.partition(":")
    source = f"{kind}:{user_path(path).absolute()}" if colon else data
    if isinstance(inputs, Tensor):
        return replace(items, names=items.names or tuple(f"{source}#{row}" for row in range(len(items))))
    names = [inputs.name(row) for row in range(len(items))]
    counts = Counter(names)
    for row, name in enumerate(names):
        file = file_of(inputs, row)
        suffix = f"[{row}]" if counts[name] > 1 else ""
        names[row] = absolute(file) if file is not None else f"{source}#{name}{suffix}"
    return replace(items, inputs=_Renamed(inputs, names))


def embedded(
    items: Items, model: Embedder | None, *, on_bad: Literal["stop", "skip"] = "stop", workers: int = 0
) -> tuple[Entries, tuple[str, ...]]:
    """Embed items for an index; also returns the names of images that could not be read.

    Args:
        items: of :func:`renamed`.
        model: None for vectors, which are indexed as they are.
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
        embeddings, skipped = model.embed_items(items, on_bad=on_bad, workers=workers)
        vectors, labels, names = embeddings.vectors, embeddings.labels, embeddings.names
    texts = [items.class_names.get(label, str(label)) or None for label in labels.tolist()]
    return Entries(vectors, list(names), texts), skipped


def joined(parts: Sequence[Entries]) -> Entries:
    """All entries, in order."""
    if len(parts) == 1:  # no copy: vectors may fill much of the memory
        return parts[0]
    return Entries(
        torch.cat([part.vectors for part in parts]),
        [path for part in parts for path in part.paths],
        [label for part in parts for label in part.labels],
    )


class Pictures:
    """The images behind the paths of an index, read on demand."""

    def __init__(self) -> None:
        self._sources: dict[str, tuple[Items, dict[str, int]]] = {}

    def read(self, path: str) -> Image:
        """The image at a path.

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


@dataclass(frozen=True)
class Reading:
    """Options of reading data.

    Attributes:
        root: folder that holds the benchmark data sets.
        allow_partial: accept a copy of a benchmark that is not complete.
        on_bad: ``"stop"`` or ``"skip"``: what to do at an image that cannot be read.
    """

    root: Path = Path("data")
    allow_partial: bool = False
    on_bad: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        _check.one_of("--on-bad-image", self.on_bad, ("stop", "skip"))

    def open(self, data: Sequence[str]) -> list[Items]:
        """The items of each source, see :func:`polyanchor.index.ingest.open_data`."""
        return [open_data(source, root=self.root, allow_partial=self.allow_partial) for source in data]


def build(
    target: Path,
    place: str,
    *,
    data: Sequence[str] = (),
    split: str = "all",
    kind: str = "exact",
    store: Any = "",
    how: Reading | None = None,
) -> tuple[Index, tuple[str, ...]]:
    """Embed data into a new index.

    Args:
        target: folder of a finished run or of a saved embedder; or a file of vectors, which are indexed unchanged.
        place: folder of the index, or name of the collection.
        data: sources; the run's own data if empty.
        split: of the run's own data: ``"all"``, ``"test"``, ``"gallery"``, ``"train"`` or ``"validation"``.
        kind: see :meth:`Index.create`.
        store: see :meth:`Index.create`.
        how: options of reading the data.

    Returns:
        The index and the names of the images that were skipped.

    Raises:
        FileExistsError: the place is taken.
        BadImageError: an image cannot be read, and ``on_bad`` is ``"stop"``; nothing was written.
    """
    how = how or Reading()
    if target.is_file():
        model, data = None, [str(target), *data]
        sources = how.open(data)
        about = About(_columns(sources[0]) or 1, kind)  # images are refused where they would be indexed
    else:
        from polyanchor.deploy.embedder import open_embedder

        model = open_embedder(target)
        about = about_of(model, target, kind)
        sources = how.open(data) if data else _own(target, split)
    if data:
        holder = f"the model of {target} takes" if model else f"{data[0]} has"
        _require_widths(sources, data, holder, _width(model, about.dim))
    Index.require_free(place, about, store=store)
    entries, skipped = _embedded(sources, model, how)
    return Index.begin(place, about, entries, model=model, store=store), skipped


def _columns(items: Items) -> int:
    """Columns of vectors; 0 for images."""
    return items.inputs.shape[1] if isinstance(items.inputs, Tensor) else 0


def _width(model: Embedder | None, dim: int) -> int:
    """Columns of the vectors that the model, or an index without one, takes; 0 for images."""
    if model is None:
        return dim
    return 0 if model.takes_images else model.model.features


def _require_widths(sources: Sequence[Items], data: Sequence[str], what: str, width: int) -> None:
    """Refuse vectors of another width before anything is embedded; :func:`embedded` refuses the other kind of input."""
    for items, name in zip(sources, data, strict=True):
        if width and _columns(items) not in (0, width):
            raise InputError(
                f"{name} has vectors of {_columns(items)} columns, {what} vectors of {width}; an index holds one "
                "width, of one model: nothing was written"
            )


def add(index: Index, data: Sequence[str], *, how: Reading | None = None) -> tuple[Added, tuple[str, ...]]:
    """Embed more data into an index; also returns the names of the images that were skipped."""
    how = how or Reading()
    model = index.model if index.about.fingerprint else None
    sources = how.open(data)
    holder = "the index's model takes" if model else f"{index.name} holds"
    _require_widths(sources, data, holder, _width(model, index.about.dim))
    entries, skipped = _embedded(sources, model, how)
    return index.add_entries(entries), skipped


def _embedded(sources: list[Items], model: Any, how: Reading) -> tuple[Entries, tuple[str, ...]]:
    results = []
    while sources:  # each is released once it is embedded: vectors may fill much of the memory
        results.append(embedded(sources.pop(0), model, on_bad=how.on_bad))
    return joined([entries for entries, _ in results]), tuple(name for _, skipped in results for name in skipped)


def _own(run: Path, split: str) -> list[Items]:
    folder = RunFolder(run)
    if not folder.config.is_file():
        raise InputError(
            f"{run} is a saved embedder, which has no data of its own; name some, for example folder:photos"
        )
    _check.one_of("--split", split, PARTS)
    config = folder.read_config()
    parts = open_parts(config)
    if split == "all":
        named: list[tuple[str, Items | None]] = [
            ("train", parts.split.train),
            ("test", parts.split.test),
            ("gallery", parts.split.gallery),
            ("validation", parts.split.validation),
        ]
    else:
        named = [(split, part_of(parts, split))]
    other = config.data.test or config.data.source
    return [
        renamed(items, other if name == "test" else config.data.source) for name, items in named if items is not None
    ]


def search_files(
    index: Index, files: Sequence[str], k: int, *, exact: bool = False, search_effort: int | None = None
) -> tuple[list[str], list[list[Hit]]]:
    """Search with image files, or with the rows of one ``.safetensors`` or ``.npz`` file.

    The rows of a file are the inputs of the index's model, if that takes vectors; otherwise its outputs.

    Args:
        index: to search in.
        files: image files, or one file of vectors.
        k: see :meth:`Index.search`.
        exact: see :meth:`Index.search`.
        search_effort: see :meth:`Index.search`.

    Returns:
        Names of the queries, and the hits of each.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a query that is not an image, vectors of another width, vectors beside images.
    """
    if not any(map(is_vectors, files)):
        try:
            return list(files), index.search(list(files), k, exact=exact, search_effort=search_effort)
        except BadImageError as error:
            reason = str(error).rpartition(". ")[0]  # its advice is for data sets
            raise InputError(f"{reason}; a query is an image, or a .safetensors or .npz file of vectors") from error
    if len(files) > 1:
        raise InputError(f"a file of vectors is searched alone, got {len(files)} queries")
    items = open_data(files[0])
    vectors = items.inputs
    assert isinstance(vectors, Tensor)  # by the suffix of the file
    if index.about.fingerprint and not index.model.takes_images:
        vectors = index.model.embed(vectors)
    names = [items.name(row) for row in range(len(items))]
    return names, index.search(vectors, k, exact=exact, search_effort=search_effort)

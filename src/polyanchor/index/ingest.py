"""From a trained model and data to an index, and more data into it."""

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
    """All items of a data source, called as the index will know them.

    Args:
        data: a source as for :func:`polyanchor.datasets.sources.open_source`, an image file, or a file of vectors
            without ``features:`` before it. Images that lie right in ``folder:DIR`` have no class, and so has an image
            file.
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


@dataclass(frozen=True)
class Reading:
    """How data are read.

    Attributes:
        root: folder that holds the benchmark data sets.
        allow_partial: accept a copy of a benchmark that is not complete.
        on_bad: ``"stop"`` or ``"skip"``: what an image that cannot be read does.
    """

    root: Path = Path("data")
    allow_partial: bool = False
    on_bad: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        _check.one_of("--on-bad-image", self.on_bad, ("stop", "skip"))

    def open(self, data: Sequence[str]) -> list[Items]:
        """The items of each source, see :func:`polyanchor.index.ingest.open_data`."""
        return [open_data(one, root=self.root, allow_partial=self.allow_partial) for one in data]


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
    """Embed data and make an index of them.

    Args:
        target: folder of a finished run or of a saved embedder; or a file of vectors, which are indexed as they are.
        place: folder of the index, or name of the collection.
        data: sources; those of the run itself if there are none.
        split: of the run's own data: ``"all"``, ``"test"``, ``"gallery"``, ``"train"`` or ``"validation"``.
        kind: see :meth:`Index.create`.
        store: likewise.
        how: the data are read.

    Returns:
        The index and the names of the images that were skipped.

    Raises:
        FileExistsError: there is something at that place.
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
        _require_widths(
            sources, data, f"the model of {target} takes" if model else f"{data[0]} has", _width(model, about.dim)
        )
    Index.require_free(place, about, store=store)
    entries, skipped = _embedded(sources, model, how)
    return Index.begin(place, about, entries, model=model, store=store), skipped


def _columns(items: Items) -> int:
    """Of vectors; 0 of images, which are refused later, in one place."""
    return items.inputs.shape[1] if isinstance(items.inputs, Tensor) else 0


def _width(model: Embedder | None, dim: int) -> int:
    """Columns of the vectors that are taken: by the model, or by an index without one; 0 where images are."""
    if model is None:
        return dim
    return 0 if model.takes_images else int(model.model.head.in_features)


def _require_widths(sources: Sequence[Items], data: Sequence[str], what: str, width: int) -> None:
    """Refuse vectors of another width before anything is embedded; the other kind is refused where it is embedded."""
    for items, name in zip(sources, data, strict=True):
        if width and _columns(items) not in (0, width):
            raise InputError(
                f"{name} has vectors of {_columns(items)} columns, {what} vectors of {width}; an index holds one "
                "width, of one model: nothing was written"
            )


def add(index: Index, data: Sequence[str], *, how: Reading | None = None) -> tuple[Added, tuple[str, ...]]:
    """Embed more data into an index; what it did, and the names of the images that were skipped."""
    how = how or Reading()
    model = index.model if index.about.fingerprint else None
    sources = how.open(data)
    _require_widths(
        sources, data, "the index's model takes" if model else f"{index.name} holds", _width(model, index.about.dim)
    )
    entries, skipped = _embedded(sources, model, how)
    return index.add_entries(entries), skipped


def _embedded(sources: list[Items], model: Any, how: Reading) -> tuple[Entries, tuple[str, ...]]:
    done = []
    while sources:  # each is let go once it is embedded: vectors may fill a good part of the memory
        done.append(embedded(sources.pop(0), model, on_bad=how.on_bad))
    return joined([entries for entries, _ in done]), tuple(name for _, skipped in done for name in skipped)


def _own(run: Path, split: str) -> list[Items]:
    """The run's own data."""
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

    Rows of a file are what the index's model takes, if that takes vectors; otherwise what it gives.

    Args:
        index: to search in.
        files: image files, or one file of vectors.
        k: see :meth:`Index.search`.
        exact: likewise.
        search_effort: likewise.

    Returns:
        Names of the queries, and the hits of each.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a query that is no image, vectors of another width, vectors beside images.
    """
    if not any(map(is_vectors, files)):
        try:
            return list(files), index.search(list(files), k, exact=exact, search_effort=search_effort)
        except BadImageError as error:
            what = str(error).rpartition(". ")[0]  # its advice is for data sets
            raise InputError(f"{what}; a query is an image, or a .safetensors or .npz file of vectors") from error
    if len(files) > 1:
        raise InputError(f"a file of vectors is searched alone, got {len(files)} queries")
    items = open_data(files[0])
    vectors = items.inputs
    assert isinstance(vectors, Tensor)  # what such a file holds
    if index.about.fingerprint and not index.model.takes_images:
        vectors = index.model.embed(vectors)
    names = [items.name(row) for row in range(len(items))]
    return names, index.search(vectors, k, exact=exact, search_effort=search_effort)

"""From a trained model and data to an index, and more data into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor.data.items import Items
from polyanchor.index.data import embedded, joined, open_data, renamed
from polyanchor.index.index import Index, about_of
from polyanchor.index.values import About, Added, Entries
from polyanchor.training.reuse import PARTS, part_of
from polyanchor.training.run_folder import RunFolder
from polyanchor.training.setup import open_parts

if TYPE_CHECKING:
    from polyanchor.deploy.embedder import Embedder


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
        """The items of each source, see :func:`polyanchor.index.data.open_data`."""
        return [open_data(one, root=self.root, allow_partial=self.allow_partial) for one in data]


def build(
    target: Path,
    place: str,
    *,
    data: Sequence[str] = (),
    part: str = "all",
    kind: str = "exact",
    store: Any = "",
    how: Reading | None = None,
) -> tuple[Index, tuple[str, ...]]:
    """Embed data and make an index of them.

    Args:
        target: folder of a finished run or of a saved embedder; or a file of vectors, which are indexed as they are.
        place: folder of the index, or name of the collection.
        data: sources; those of the run itself if there are none.
        part: of the run's own data: ``"all"``, ``"test"``, ``"gallery"``, ``"train"`` or ``"validation"``.
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
        sources = how.open(data) if data else _own(target, part)
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


def _own(run: Path, part: str) -> list[Items]:
    """The run's own data."""
    folder = RunFolder(run)
    if not folder.config.is_file():
        raise InputError(
            f"{run} is a saved embedder, which has no data of its own; name some, for example folder:photos"
        )
    _check.one_of("--part", part, PARTS)
    config = folder.read_config()
    parts = open_parts(config)
    split = parts.split
    if part == "all":
        named: list[tuple[str, Items | None]] = [
            ("train", split.train),
            ("test", split.test),
            ("gallery", split.gallery),
            ("validation", split.validation),
        ]
    else:
        named = [(part, part_of(parts, part))]
    other = config.data.test or config.data.source
    return [
        renamed(items, other if name == "test" else config.data.source) for name, items in named if items is not None
    ]

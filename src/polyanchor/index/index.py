"""Index: images or vectors in, hits out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._defaults import own_defaults
from polyanchor._errors import InputError
from polyanchor._io import user_path
from polyanchor.datasets.formats._tables import encodable
from polyanchor.datasets.loading import Given, collected
from polyanchor.index import qdrant_store as qdrant
from polyanchor.index.folder_store import FolderStore
from polyanchor.index.types import About, Added, Entries, Hit, Store
from polyanchor.search.scores import padded_unit_rows

if TYPE_CHECKING:
    from polyanchor.deploy.embedder import Embedder

_MODEL_FIRST = "give the model it was made with (--model, model=...), or make a new index"


class Index:
    """Searchable items with their vectors, in a folder or in a collection of a Qdrant server.

    Obtained from :meth:`create` or :meth:`open`. An open index in a folder does not see the changes of other processes,
    only its own.

    Args:
        store: its storage.
        name: its name in messages.
        model: the embedder, if it is open already.

    Raises:
        ValueError: the embedder is not the one that the index was made with.

    Example:
        >>> import tempfile, torch
        >>> index = Index.create(tempfile.mkdtemp(), dim=2)
        >>> added = index.add(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), paths=["a.jpg", "b.jpg"], labels=["cat", "dog"])
        >>> [[hit]] = index.search(torch.tensor([[0.1, 1.0]]), k=1)
        >>> hit.id, hit.path, hit.label, round(hit.score, 3)
        (1, 'b.jpg', 'dog', 0.995)
        >>> index.remove(paths=["b.jpg"]), len(index)
        (1, 1)
    """

    def __init__(self, store: Store, name: str, model: Embedder | None = None) -> None:
        self._store, self.name = store, name
        self._model = None if model is None else self._own(model)

    @classmethod
    @own_defaults()
    def create(
        cls,
        place: str | Path,
        *,
        model: Embedder | str | Path | None = None,
        dim: int | None = None,
        kind: str = "exact",
        store: Any = "",
    ) -> Index:
        """Create an empty index.

        Args:
            place: new or empty folder; or name of the collection.
            model: embeds images for it: the folder of a run or of a saved embedder, or an embedder, which then has to
                be passed again to :meth:`open`. Without one the index takes vectors alone.
            dim: D, columns of the vectors, for an index without a model.
            kind: ``"exact"`` compares a query with every item; ``"hnsw"`` and ``"ivf"`` (faiss) with some, which is
                faster from some ten thousand items on; :func:`polyanchor.index.recall.measure_recall` measures what
                they miss.
            store: empty for a folder; ``"qdrant:http://HOST:6333"``, or a ``qdrant_client.QdrantClient``.

        Raises:
            FileExistsError: the place is taken.
            ValueError: neither or both of ``model`` and ``dim``, or an unknown kind or store.
        """
        if (model is None) == (dim is None):
            raise InputError("an index needs either a model (model=...) or, for vectors alone, their width (dim=...)")
        model = user_path(model) if isinstance(model, (str, Path)) else model
        embedder = _loaded(model)
        about = About(dim or 0, kind) if embedder is None else about_of(embedder, model, kind)
        return cls.begin(place, about, Entries.none(about.dim), model=embedder, store=store)

    @staticmethod
    def require_free(place: str | Path, about: About, *, store: Any = "") -> None:
        """Raise the errors of :meth:`begin`, before anything is computed."""
        client = _client(store)
        if client is None:
            FolderStore.require_free(user_path(place), about)
        else:
            qdrant.QdrantStore.require_free(client, str(place), about)

    @classmethod
    @own_defaults()
    def begin(
        cls, place: str | Path, about: About, entries: Entries, *, model: Embedder | None = None, store: Any = ""
    ) -> Index:
        """Create an index with its first items: a folder appears with all of them or not at all."""
        client = _client(store)
        if client is None:
            return cls(FolderStore.create(user_path(place), about, entries), str(user_path(place)), model)
        return cls(qdrant.QdrantStore.create(client, str(place), about, entries), str(place), model)

    @classmethod
    @own_defaults()
    def open(cls, place: str | Path, *, model: Embedder | str | Path | None = None, store: Any = "") -> Index:
        """Open an index; the vectors stay on disk until they are searched.

        Args:
            place: as for :meth:`create`.
            model: needed only if the index's model has moved.
            store: as for :meth:`create`.

        Raises:
            ConnectionError: the server does not answer.
            FileNotFoundError: no index at that place, or no model.
            ValueError: a damaged index, or another model than the one it was made with.
        """
        client = _client(store)
        if client is None:
            return cls(FolderStore(user_path(place)), str(user_path(place)), _loaded(model))
        return cls(qdrant.QdrantStore(client, str(place)), str(place), _loaded(model))

    @property
    def about(self) -> About:
        """Width, kind and model."""
        return self._store.about

    def __len__(self) -> int:
        return len(self._store)

    @property
    def model(self) -> Embedder:
        """The embedder that the index was made with; opened on first use.

        Raises:
            FileNotFoundError: it has moved.
            ValueError: another model is in its place, or the index takes vectors alone.
        """
        if self._model is None:
            if not self.about.fingerprint:
                raise InputError(f"{self.name} was made for vectors alone, without a model that could embed images")
            if not self.about.model:
                raise InputError(f"{self.name} was made with an embedder that lay in no folder; {_MODEL_FIRST}")
            try:
                self._model = self._own(_loaded(self.about.model))
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{self.name}: {error}; {_MODEL_FIRST}") from error
        return self._model

    @own_defaults()
    def add(
        self,
        inputs: Iterable[Given] | Given | Tensor,
        *,
        paths: Sequence[str | None] | None = None,
        labels: Sequence[str | None] | None = None,
    ) -> Added:
        """Add items. One whose path is in the index already replaces that item and keeps its id.

        Args:
            inputs: N images (paths, PIL images, bytes, arrays), or ``(N, D)`` floating vectors of any length, which
                have to be the index's model's: only their width is checked.
            paths: N paths or other names; None for the absolute paths of the files.
            labels: N names of classes.

        Raises:
            BadImageError: an image cannot be read; nothing was added.
            ValueError: vectors of another width or not finite, another number of paths or labels, or one that is not
                UTF-8.
        """
        inputs = collected(inputs)
        if paths is None:
            paths = [None] * len(inputs) if isinstance(inputs, Tensor) else [_path(image) for image in inputs]
        labels = labels or [None] * len(inputs)
        Entries(torch.empty(len(inputs), 0), paths, labels)  # raises its errors before anything is embedded
        return self.add_entries(Entries(self._vectors(inputs), paths, labels))

    @own_defaults()
    def add_entries(self, entries: Entries) -> Added:
        """Add embedded items."""
        return self._store.add(entries)

    def find(self, paths: Sequence[str]) -> list[int | None]:
        """The ids of the items with these paths, as written or else made absolute; None for a path that is absent.

        Raises:
            ValueError: a path is not UTF-8, as those of an index are.
        """
        encodable(paths, what=self.name)
        as_written, as_absolute = self._store.find(paths), self._store.find([absolute(path) for path in paths])
        return [second if first is None else first for first, second in zip(as_written, as_absolute, strict=True)]

    @own_defaults()
    def remove(self, *, ids: Sequence[int] = (), paths: Sequence[str] = ()) -> int:
        """Remove items; their ids are never used again.

        Args:
            ids: of items.
            paths: of items, see :meth:`find`.

        Returns:
            Their number.

        Raises:
            ValueError: one of them is absent; nothing was removed.
        """
        of_paths = self.find(paths)
        if None in of_paths:
            raise InputError(f"{self.name} has no item {paths[of_paths.index(None)]!r}; nothing was removed")
        return self._store.remove([*ids, *(number for number in of_paths if number is not None)])

    @own_defaults()
    def search(
        self,
        queries: Iterable[Given] | Given | Tensor,
        k: int = 10,
        *,
        exact: bool = False,
        search_effort: int | None = None,
    ) -> list[list[Hit]]:
        """The items most similar to each query, by the cosine of their vectors.

        Args:
            queries: one image, several or none, as for :meth:`polyanchor.deploy.embedder.Embedder.embed`, or ``(Q, D)``
                floating vectors of any length, a tensor or an array.
            k: number of hits, 1 or more, capped at the number of items. A query that is in the index finds itself.
            exact: compare with every item, regardless of the kind of index.
            search_effort: candidates of ``hnsw`` or lists of ``ivf`` to search; None for a default by size. More finds
                more, and takes longer.

        Returns:
            For each query its hits, best first, lower id first among equals. ``ivf`` may find fewer than k.

        Raises:
            BadImageError: a query cannot be read.
            ValueError: an empty index, vectors of another width or not finite, a number below 1, or ``search_effort``
                of an exact search.
        """
        k = _check.count("k", k)
        search_effort = None if search_effort is None else _check.count("search_effort", search_effort)
        if search_effort is not None and (exact or self.about.kind == "exact"):
            raise InputError(
                "search_effort (--search-effort) is how far hnsw and ivf look, but this search is exact; leave it out"
            )
        vectors, size = self._vectors(queries), len(self)
        if not len(vectors):
            return []
        if not size:
            raise InputError(f"{self.name} is empty; put something in with: polyanchor index add {self.name} DATA")
        return self._store.search(vectors, min(k, size), exact=exact, search_effort=search_effort)

    @own_defaults()
    def sample(self, count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
        """``(n,)`` ids and ``(n, D)`` vectors of random items, n at most ``count``."""
        return self._store.sample(count, seed)

    def _vectors(self, inputs: Iterable[Given] | Given | Tensor) -> Tensor:
        inputs = collected(inputs)
        if not isinstance(inputs, Tensor):
            if not inputs:  # of either kind
                return torch.empty(0, self.about.dim)
            return self.model.embed(inputs)
        return unit_vectors(inputs, self.about.dim)

    def _own(self, model: Embedder | None) -> Embedder:
        """The model, if its fingerprint is that of the index."""
        assert model is not None
        if model.fingerprint != self.about.fingerprint:
            origin = f"the model {self.about.fingerprint[:12]} of {self.about.model or 'no folder'}"
            raise InputError(
                f"{self.name} was made with {origin if self.about.fingerprint else 'vectors alone'}, got the model "
                f"{model.fingerprint[:12]}: vectors of two models cannot be compared; {_MODEL_FIRST}"
            )
        return model


def about_of(embedder: Embedder, model: Embedder | str | Path | None, kind: str) -> About:
    """The description of an index for an embedder, which came from the folder ``model`` if that is one."""
    folder = str(Path(model).absolute()) if isinstance(model, (str, Path)) else ""
    return About(embedder.embedding_dim, kind, folder, embedder.fingerprint)


def unit_vectors(vectors: Tensor, dim: int) -> Tensor:
    """``(N, D)`` float32 of length 1, from floating vectors of any length.

    Raises:
        TypeError: not a floating tensor.
        ValueError: another shape, NaN or infinity.
    """
    if not (isinstance(vectors, Tensor) and vectors.ndim == 2 and not len(vectors)):
        _check.vectors("vectors", vectors, rows="N")
    if vectors.shape[1] != dim:
        raise InputError(f"the index holds vectors with {dim} columns, got {vectors.shape[1]}; use the same model")
    _check.finite("vectors", vectors)
    return padded_unit_rows(vectors.detach().cpu(), dtype=torch.float32)[: len(vectors)].float()


def _loaded(model: Embedder | str | Path | None) -> Embedder | None:
    if not isinstance(model, (str, Path)):
        return model
    from polyanchor.deploy.embedder import open_embedder  # an index of vectors needs no timm

    return open_embedder(model)


def _client(store: Any) -> Any:
    """A Qdrant client, or None for a folder."""
    if not isinstance(store, str):
        return store
    if store.startswith("qdrant:"):
        return qdrant.connect(store.removeprefix("qdrant:"))
    if store:
        raise InputError(f"--store must be qdrant:http://HOST:PORT, got {store!r}; an index in a folder needs none")
    return None


def _path(image: Given) -> str | None:
    return absolute(image) if isinstance(image, (str, os.PathLike)) else None


def absolute(path: str | os.PathLike[str]) -> str:
    """Absolute, without ``..``; links are not resolved, as an image may be in two classes by a link."""
    return os.path.abspath(user_path(path))  # noqa: PTH100 (Path.resolve follows links, Path.absolute keeps ..)

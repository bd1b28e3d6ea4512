"""An index on a Qdrant server: one collection, whose metadata describe it.

An item is a point with its id, vector, and path and label as payload. An id is a digest of the path, so that a path is
the same point for every writer, and several may write at once. Items without a path get random ids. The server replaces
a batch of points in one step, but not a whole long change: after an interruption, repeat the command.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._optional import load
from polyanchor.index.types import About, Added, Entries, Hit

KINDS = "exact", "hnsw"
_KEY = "polyanchor"
_BATCH = 500  # points or queries in one request


class QdrantStore:
    """An index in a collection of a Qdrant server, version 1.16 or later.

    Args:
        client: a ``qdrant_client.QdrantClient``.
        name: of the collection.

    Raises:
        ConnectionError: the server does not answer.
        FileNotFoundError: there is no such collection.
        ValueError: the collection was not made by polyanchor.
    """

    def __init__(self, client: Any, name: str) -> None:
        self.client, self.name = client, name
        with _translated_errors():
            if not client.collection_exists(name):
                raise FileNotFoundError(
                    f"the server has no collection {name!r}; make one with: polyanchor index build RUN DATA "
                    f"--out {name} --store ..."
                )
            metadata: Any = (client.get_collection(name).config.metadata or {}).get(_KEY)
        try:
            self.about = About(**metadata)
        except TypeError as error:
            raise InputError(
                f"the collection {name!r} was not made by polyanchor, or the server is older than Qdrant 1.16, which "
                "keeps no metadata"
            ) from error

    @classmethod
    def create(cls, client: Any, name: str, about: About, entries: Entries) -> QdrantStore:
        """Create the collection with the first items.

        Raises:
            FileExistsError: there is a collection of that name.
        """
        cls.require_free(client, name, about)
        models = load("qdrant_client.models", "qdrant")
        with _translated_errors():
            client.create_collection(
                name,
                vectors_config=models.VectorParams(size=about.dim, distance=models.Distance.COSINE),
                metadata={_KEY: asdict(about)},
            )
        store = cls(client, name)
        store.add(entries)
        return store

    @staticmethod
    def require_free(client: Any, name: str, about: About) -> None:
        """Raise the errors of :meth:`create`, before anything is computed."""
        _check.one_of("kind on a Qdrant server", about.kind, KINDS)
        if not name or "/" in name:
            raise InputError(f"on a Qdrant server the index is a collection, whose name has no '/'; got {name!r}")
        with _translated_errors():
            taken = client.collection_exists(name)
        if taken:
            raise FileExistsError(
                f"the server has a collection {name!r} already; put more into it with: polyanchor index add {name} "
                "DATA --store ..., or delete it"
            )

    def __len__(self) -> int:
        with _translated_errors():
            return int(self.client.count(self.name, exact=True).count)

    def add(self, entries: Entries) -> Added:
        models = load("qdrant_client.models", "qdrant")
        ids = [secrets.randbits(63) if path is None else id_of(path) for path in entries.paths]
        rows = {number: row for row, number in enumerate(ids)}  # of equal paths the last
        labels = self._labels(list(rows))
        for batch in _batches(list(rows)):
            points = [
                models.PointStruct(
                    id=number,
                    vector=entries.vectors[row].tolist(),
                    payload={"path": entries.paths[row], "label": labels.get(number) if label is None else label},
                )
                for number in batch
                for row in [rows[number]]
                for label in [entries.labels[row]]
            ]
            with _translated_errors():
                self.client.upsert(self.name, points, wait=True)
        return Added(torch.tensor(ids, dtype=torch.int64), len(rows) - len(labels))

    def find(self, paths: Sequence[str]) -> list[int | None]:
        ids = [id_of(path) for path in paths]
        labels = self._labels(ids)
        return [number if number in labels else None for number in ids]

    def remove(self, ids: Sequence[int]) -> int:
        models = load("qdrant_client.models", "qdrant")
        unknown = sorted(set(ids) - self._labels(ids).keys())
        if unknown:
            raise InputError(f"the index has no item with the id {unknown[0]}; nothing was removed")
        for batch in _batches(sorted(set(ids))):
            with _translated_errors():
                self.client.delete(self.name, models.PointIdsList(points=batch), wait=True)
        return len(set(ids))

    def search(
        self, queries: Tensor, k: int, *, exact: bool = False, search_effort: int | None = None
    ) -> list[list[Hit]]:
        """See :meth:`polyanchor.index.types.Store.search`; the server keeps any of the items that tie at the end."""
        models = load("qdrant_client.models", "qdrant")
        params = models.SearchParams(exact=exact or self.about.kind == "exact", hnsw_ef=search_effort)
        hits = []
        for batch in _batches(queries.tolist()):
            requests = [
                models.QueryRequest(query=query, limit=k, params=params, with_payload=True, with_vector=False)
                for query in batch
            ]
            with _translated_errors():
                answers = self.client.query_batch_points(self.name, requests)
            hits += [sorted(map(_hit, answer.points), key=lambda hit: (-hit.score, hit.id)) for answer in answers]
        return hits

    def sample(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """See :meth:`polyanchor.index.types.Store.sample`; points from a random id on."""
        start = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(seed)))
        vectors: dict[int, Any] = {}
        with _translated_errors():
            for offset in (start, None):  # from there on, then from the beginning
                points, _ = self.client.scroll(
                    self.name, limit=count, offset=offset, with_payload=False, with_vectors=True
                )
                vectors |= {point.id: point.vector for point in points}
        ids = list(vectors)[:count]
        rows = torch.tensor([vectors[number] for number in ids]).reshape(-1, self.about.dim)
        return torch.tensor(ids, dtype=torch.int64), rows

    def _labels(self, ids: Sequence[int]) -> dict[int, str | None]:
        """Label of each of the ids that the collection has."""
        labels: dict[int, str | None] = {}
        for batch in _batches(ids):
            with _translated_errors():
                points = self.client.retrieve(self.name, batch, with_payload=["label"], with_vectors=False)
            labels |= {point.id: (point.payload or {}).get("label") for point in points}
        return labels


def connect(address: str) -> Any:
    """A client for a server's address, with the API key in ``QDRANT_API_KEY``.

    Raises:
        ValueError: not an address. The client's own storage in a folder is refused, as it unpickles files.
    """
    if not address.startswith(("http://", "https://")):
        raise InputError(
            f"--store must be qdrant:http://HOST:PORT or qdrant:https://HOST:PORT, got 'qdrant:{address}'; an index in "
            "a folder needs no --store"
        )
    client = load("qdrant_client", "qdrant").QdrantClient
    return client(url=address, api_key=os.environ.get("QDRANT_API_KEY"), check_compatibility=False)


def id_of(path: str) -> int:
    """The id of an item with this path: 63 bits of its digest.

    Example:
        >>> id_of("photos/cat/1.jpg")
        567922979568075257
    """
    return int.from_bytes(hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big") >> 1


def _hit(point: Any) -> Hit:
    payload = point.payload or {}
    return Hit(point.id, point.score, payload.get("label"), payload.get("path"))


def _batches(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[start : start + _BATCH] for start in range(0, len(values), _BATCH))


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Turn the client's exceptions into errors that say what to check."""
    errors = load("qdrant_client.http.exceptions", "qdrant")
    try:
        yield
    except errors.ResponseHandlingException as error:
        raise ConnectionError(f"the Qdrant server does not answer: {error}; is it running at this address?") from error
    except errors.UnexpectedResponse as error:
        raise InputError(f"the Qdrant server refused: {error}") from error

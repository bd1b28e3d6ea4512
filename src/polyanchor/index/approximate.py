"""Approximate neighbours with faiss: built, kept in a file beside its checksum, searched."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyanchor._errors import InputError
from polyanchor._extras import load
from polyanchor._files import replacing
from polyanchor.types import Neighbours

KINDS = "hnsw", "ivf"
_LINKS, _BUILDING, _LOOKING = 32, 80, 64  # HNSW: links of an item, candidates while building, while searching
_PER_LIST, _LISTS_LOOKED = 39, 32  # IVF: items that faiss wants for each list; one list in 32 is looked into


def build(vectors: Tensor, kind: str) -> Any:
    """A faiss index of unit rows, searched by inner product.

    ``"hnsw"``: 32 links for each item, 80 candidates while it is built. ``"ivf"``: 4 sqrt(N) lists, fewer where that
    would leave a list with less than 39 items.

    Args:
        vectors: ``(N, D)`` float32, N at least 1.
        kind: one of :data:`KINDS`.
    """
    faiss, dim = load("faiss", "search"), vectors.shape[1]
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _BUILDING
    else:
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists_for(len(vectors)), faiss.METRIC_INNER_PRODUCT)
        index.cp.spherical = True
        index.cp.min_points_per_centroid = 1  # what lists_for has seen to; without it faiss warns on stdout
        index.train(vectors.numpy())
    index.add(vectors.numpy())
    return index


def extended(index: Any, vectors: Tensor) -> bool:
    """Put further rows behind those of an index, if it is still of a shape that suits their number.

    Returns:
        Whether it was done; if not, build a new one.
    """
    if hasattr(index, "nlist") and lists_for(index.ntotal + len(vectors)) >= 2 * index.nlist:
        return False  # the lists were made for a quarter of what is there now
    index.add(vectors.numpy())
    return True


def lists_for(size: int) -> int:
    """How many lists an IVF index of so many items has.

    Example:
        >>> lists_for(10), lists_for(1_000), lists_for(100_000)
        (1, 25, 1264)
    """
    return max(1, min(4 * math.isqrt(size), size // _PER_LIST))


def search(index: Any, queries: Tensor, k: int, *, breadth: int | None = None) -> Neighbours:
    """The neighbours that faiss finds, as rows; equal scores stand in order of their rows.

    Args:
        index: of N rows.
        queries: ``(Q, D)`` float32 of length 1.
        k: from 1 to N.
        breadth: candidates (HNSW, at least k) or lists (IVF) that are looked at; None: 64 or k + 1, the larger; one
            list in 32 or eight, the larger.

    Returns:
        ``(Q, k)`` rows and scores; row -1 and score -inf where faiss found fewer.
    """
    # On the index, not as `params=`: pytorch-metric-learning loads faiss's torch_utils, whose `search` takes none.
    if hasattr(index, "nlist"):
        index.nprobe = min(breadth or max(8, index.nlist // _LISTS_LOOKED), index.nlist)
    else:
        index.hnsw.efSearch = max(breadth or _LOOKING, k + 1)
    found = index.search(queries.contiguous().numpy(), k)
    scores, rows = (torch.from_numpy(part) for part in found)
    by_row = rows.argsort(dim=1)
    order = by_row.gather(1, scores.gather(1, by_row).argsort(dim=1, descending=True, stable=True))
    rows, scores = rows.gather(1, order), scores.gather(1, order)
    return Neighbours(rows, scores.masked_fill(rows < 0, -torch.inf))


def write(index: Any, file: Path) -> str:
    """Write the index, in place of the file; returns the file's checksum."""
    with replacing(file) as unfinished:
        load("faiss", "search").write_index(index, str(unfinished))
        return _checksum(unfinished)


def read(file: Path, checksum: str, *, size: int, dim: int) -> Any:
    """Read what :func:`write` wrote; a file that is not the same to the last bit is not given to faiss.

    Raises:
        ValueError: another checksum, or an index of other vectors.
    """
    if _checksum(file) != checksum:
        raise InputError(f"{file} is damaged: it is not the file that was written; build the index again")
    index = load("faiss", "search").read_index(str(file))
    if (index.ntotal, index.d) != (size, dim):
        raise InputError(f"{file} holds {index.ntotal} x {index.d} vectors, expected {size} x {dim}; build it again")
    return index


def _checksum(file: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()

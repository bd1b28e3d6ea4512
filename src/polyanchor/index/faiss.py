"""Approximate nearest neighbours with faiss."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyanchor._errors import InputError
from polyanchor._io import replacing
from polyanchor._optional import load
from polyanchor.types import Neighbours

KINDS = "hnsw", "ivf"
_LINKS, _EF_CONSTRUCTION, _EF_SEARCH = 32, 80, 64  # HNSW: links of an item, candidates while building, while searching
_ROWS = 2**14  # compared at a time
_PER_LIST, _LISTS_PER_PROBE = 39, 32  # IVF: items that faiss wants for each list; one list in 32 is searched


def build(vectors: Tensor, kind: str) -> Any:
    """A faiss index of unit rows, searched by inner product.

    ``"hnsw"``: 32 links for each item, 80 candidates while it is built. ``"ivf"``: 4 sqrt(N) lists, fewer where that
    would leave a list with fewer than 39 items.

    Args:
        vectors: ``(N, D)`` float32, N at least 1.
        kind: one of :data:`KINDS`.
    """
    faiss, dim = load("faiss", "search"), vectors.shape[1]
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _EF_CONSTRUCTION
    else:
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists_for(len(vectors)), faiss.METRIC_INNER_PRODUCT)
        index.cp.spherical = True
        index.cp.min_points_per_centroid = 1  # lists_for ensures more; else faiss warns on stdout
        index.train(vectors.numpy())
    index.add(vectors.numpy())
    return index


def nodes_of(vectors: Tensor) -> Tensor:
    """The node of each row: equal rows share a node, numbered from 0 in the order of their first rows.

    In a graph, a thousand copies of one vector (a placeholder image) would link to each other alone and block the way
    to everything else.

    Args:
        vectors: ``(N, D)`` float32.

    Returns:
        ``(N,)`` int64.

    Example:
        >>> nodes_of(torch.eye(3)[[2, 0, 2, 1, 0]])
        tensor([0, 1, 0, 2, 1])
    """
    factors = torch.randint(-(2**62), 2**62, (vectors.shape[1],), generator=torch.Generator().manual_seed(0)) * 2 + 1
    sums = [(block.view(torch.int32) * factors).sum(dim=1) for block in vectors.contiguous().split(_ROWS)]
    alike = torch.cat(sums).unique(return_inverse=True)[1]
    rows = torch.arange(len(vectors))
    first = torch.full_like(rows, len(rows)).scatter_reduce(0, alike, rows, "amin")[alike]
    for chunk in rows.split(_ROWS):  # different rows with equal sums, by chance: such a row is a node of its own
        first[chunk] = torch.where((vectors[chunk] == vectors[first[chunk]]).all(dim=1), first[chunk], chunk)
    return first.unique(return_inverse=True)[1]


def first_rows(nodes: Tensor) -> Tensor:
    """``(M,)`` int64, the first row of each node.

    Example:
        >>> first_rows(torch.tensor([0, 1, 0, 2, 1]))
        tensor([0, 1, 3])
    """
    rows = torch.arange(len(nodes))
    return torch.full((int(nodes.max()) + 1,), len(rows)).scatter_reduce(0, nodes, rows, "amin")


def expanded(near: Neighbours, nodes: Tensor, k: int) -> Neighbours:
    """The k best rows of the nodes that a search returned, lower row first among equal scores.

    Args:
        near: nodes, best first.
        nodes: ``(N,)``, the node of each row.
        k: from 1 to N.

    Returns:
        ``(Q, k)`` rows and scores; row -1 and score -inf where there are fewer.
    """
    by_node = nodes.argsort(stable=True)
    ends = nodes.bincount().cumsum(0)
    ids = torch.full((len(near.ids), k), -1)
    scores = torch.full((len(near.ids), k), -torch.inf)
    for query, (found, values) in enumerate(zip(near.ids, near.scores, strict=True)):
        found, values = found[found >= 0], values[found >= 0]
        if not len(found):
            continue
        starts = torch.where(found > 0, ends[found - 1], 0)
        counts = (ends[found] - starts).clamp(max=k)
        enough = min(int((counts.cumsum(0) < k).sum()), len(found) - 1)
        kept = values >= values[enough]  # nodes that tie with the last one needed may have earlier rows
        parts = [by_node[start : start + count] for start, count in zip(starts[kept], counts[kept], strict=True)]
        rows, values = torch.cat(parts), values[kept].repeat_interleave(counts[kept])
        rows, order = rows.sort()
        values, order = values[order].sort(descending=True, stable=True)
        ids[query, : len(rows)], scores[query, : len(rows)] = rows[order][:k], values[:k]
    return Neighbours(ids, scores)


def extended(index: Any, vectors: Tensor) -> bool:
    """Append rows to an index, if its number of lists still suits the size.

    Returns:
        Whether they were appended; if not, build a new index.
    """
    if hasattr(index, "nlist") and lists_for(index.ntotal + len(vectors)) >= 2 * index.nlist:
        return False  # the lists were made for a quarter of the present size
    index.add(vectors.numpy())
    return True


def lists_for(size: int) -> int:
    """Number of lists of an IVF index of ``size`` items.

    Example:
        >>> lists_for(10), lists_for(1_000), lists_for(100_000)
        (1, 25, 1264)
    """
    return max(1, min(4 * math.isqrt(size), size // _PER_LIST))


def search(index: Any, queries: Tensor, k: int, *, search_effort: int | None = None) -> Neighbours:
    """The neighbours that faiss finds, lower row first among equal scores.

    Args:
        index: of N rows.
        queries: ``(Q, D)`` float32 of length 1.
        k: from 1 to N.
        search_effort: candidates (HNSW, at least k) or lists (IVF) to search; None: the larger of 64 and k + 1; the
            larger of one list in 32 and eight.

    Returns:
        ``(Q, k)`` rows and scores; row -1 and score -inf where faiss found fewer.
    """
    # On the index, not as `params=`: pytorch-metric-learning loads faiss's torch_utils, whose `search` takes none.
    if hasattr(index, "nlist"):
        index.nprobe = min(search_effort or max(8, index.nlist // _LISTS_PER_PROBE), index.nlist)
    else:
        index.hnsw.efSearch = max(search_effort or _EF_SEARCH, k + 1)
    scores, rows = map(torch.from_numpy, index.search(queries.contiguous().numpy(), k))
    by_row = rows.argsort(dim=1)
    order = by_row.gather(1, scores.gather(1, by_row).argsort(dim=1, descending=True, stable=True))
    rows, scores = rows.gather(1, order), scores.gather(1, order)
    return Neighbours(rows, scores.masked_fill(rows < 0, -torch.inf))


def write(index: Any, file: Path) -> str:
    """Write the index, replacing the file in one step; returns the file's checksum."""
    with replacing(file) as unfinished:
        load("faiss", "search").write_index(index, str(unfinished))
        return _checksum(unfinished)


def read(file: Path, checksum: str, *, size: int, dim: int) -> Any:
    """Read an index written by :func:`write`; faiss never opens a file that differs in a single bit.

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

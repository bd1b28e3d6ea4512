"""Approximate neighbours with faiss: built, kept in a file beside its checksum, searched."""

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
_LINKS, _BUILDING, _LOOKING = 32, 80, 64  # HNSW: links of an item, candidates while building, while searching
_ROWS = 2**14  # compared at a time
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


def nodes_of(vectors: Tensor) -> Tensor:
    """The node of each row: equal rows are one node, numbered from 0 in the order of their first rows.

    A graph of a thousand copies (a placeholder image) has none but their own among its links: the copies find each
    other, and little else finds a way past them.

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
    for here in rows.split(_ROWS):  # rows may have one sum by chance: such a row is a node of its own
        first[here] = torch.where((vectors[here] == vectors[first[here]]).all(dim=1), first[here], here)
    return first.unique(return_inverse=True)[1]


def first_rows(nodes: Tensor) -> Tensor:
    """``(M,)`` int64, the first row of each node.

    Example:
        >>> first_rows(torch.tensor([0, 1, 0, 2, 1]))
        tensor([0, 1, 3])
    """
    rows = torch.arange(len(nodes))
    return torch.full((int(nodes.max()) + 1,), len(rows)).scatter_reduce(0, nodes, rows, "amin")


def expanded(found: Neighbours, nodes: Tensor, k: int) -> Neighbours:
    """The rows of the nodes that a search found, the k best, in order of rows where scores are equal.

    Args:
        found: of nodes, best first.
        nodes: ``(N,)``, the node of each row.
        k: from 1 to N.

    Returns:
        ``(Q, k)`` rows and scores; row -1 and score -inf where there are fewer.
    """
    by_node = nodes.argsort(stable=True)
    ends = nodes.bincount().cumsum(0)
    ids = torch.full((len(found.ids), k), -1)
    scores = torch.full((len(found.ids), k), -torch.inf)
    for query, (some, their) in enumerate(zip(found.ids, found.scores, strict=True)):
        some, their = some[some >= 0], their[some >= 0]
        if not len(some):
            continue
        starts = torch.where(some > 0, ends[some - 1], 0)
        counts = (ends[some] - starts).clamp(max=k)
        enough = min(int((counts.cumsum(0) < k).sum()), len(some) - 1)
        kept = their >= their[enough]  # those that tie with the last one needed may have earlier rows
        parts = [by_node[start : start + count] for start, count in zip(starts[kept], counts[kept], strict=True)]
        rows, values = torch.cat(parts), their[kept].repeat_interleave(counts[kept])
        rows, order = rows.sort()
        values, order = values[order].sort(descending=True, stable=True)
        ids[query, : len(rows)], scores[query, : len(rows)] = rows[order][:k], values[:k]
    return Neighbours(ids, scores)


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


def search(index: Any, queries: Tensor, k: int, *, search_effort: int | None = None) -> Neighbours:
    """The neighbours that faiss finds, as rows; equal scores stand in order of their rows.

    Args:
        index: of N rows.
        queries: ``(Q, D)`` float32 of length 1.
        k: from 1 to N.
        search_effort: candidates (HNSW, at least k) or lists (IVF) that are looked at; None: 64 or k + 1, the larger;
            one list in 32 or eight, the larger.

    Returns:
        ``(Q, k)`` rows and scores; row -1 and score -inf where faiss found fewer.
    """
    # On the index, not as `params=`: pytorch-metric-learning loads faiss's torch_utils, whose `search` takes none.
    if hasattr(index, "nlist"):
        index.nprobe = min(search_effort or max(8, index.nlist // _LISTS_LOOKED), index.nlist)
    else:
        index.hnsw.efSearch = max(search_effort or _LOOKING, k + 1)
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

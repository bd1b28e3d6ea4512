"""Exact nearest neighbours by cosine similarity, computed in blocks of queries.

``search`` compares queries with a gallery, ``search_others`` each row of a matrix with all others. The
``..._blocks`` twins yield a block of queries at a time, so that nothing of the size queries x k is kept. Half
precision is computed in float32; float64 stays float64. On a GPU the products follow
``torch.get_float32_matmul_precision()``: leave it at ``"highest"`` for exact ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor.search import scores, symmetric
from polyanchor.search.scores import BLOCK_BYTES, SearchInputs, best
from polyanchor.types import Neighbours


def search(queries: Tensor, gallery: Tensor, k: int, *, block_bytes: int = BLOCK_BYTES) -> Neighbours:
    r"""The k gallery rows most similar to each query.

    .. math:: s_{qn} = \frac{x_q \cdot g_n}{\lVert x_q \rVert \, \lVert g_n \rVert}

    A row of zeros has similarity 0 to everything. Equal similarities are ranked in order of their gallery rows.

    Args:
        queries: ``(Q, D)`` floating, of any length.
        gallery: ``(N, D)`` floating, of any length, on the same device.
        k: number of neighbours, from 1 to N.
        block_bytes: memory for the scores and neighbours of one block of queries; at least 16 queries.

    Returns:
        ``Neighbours`` of ``(Q, k)`` ids and scores; the scores float32, or float64 if an input is.

    Raises:
        TypeError: an input is not a floating tensor, or k not an int.
        ValueError: shapes or devices differ, a value is NaN or infinite, or k is out of range.

    Example:
        >>> gallery = torch.tensor([[0.0, 1.0], [2.0, 0.0], [3.0, 3.0]])
        >>> search(torch.tensor([[5.0, 0.0]]), gallery, 2)
        Neighbours(ids=tensor([[1, 2]]), scores=tensor([[1.0000, 0.7071]]))
    """
    return _joined(search_blocks(queries, gallery, k, block_bytes=block_bytes))


def search_others(embeddings: Tensor, k: int, *, block_bytes: int = BLOCK_BYTES) -> Neighbours:
    """The k rows most similar to each row, the row itself left out by identity.

    A copy of the row under another index is found like any other neighbour.

    Args:
        embeddings: ``(N, D)`` floating, of any length, N at least 2.
        k: number of neighbours, from 1 to N - 1.
        block_bytes: memory for the scores and neighbours of one block of queries; at least 16 queries. Within a few
            tens of MiB, large searches on a CPU need half the products, see
            :func:`polyanchor.search.symmetric.pays`; the answer is the same.

    Returns:
        ``Neighbours`` of ``(N, k)`` ids and scores; the scores float32, or float64 if the input is.

    Raises:
        TypeError: ``embeddings`` is not a floating tensor, or k not an int.
        ValueError: not ``(N, D)``, a value is NaN or infinite, or k is out of range.

    Example:
        >>> search_others(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), 1).ids.tolist()
        [[1], [0], [0]]
    """
    return _joined(search_others_blocks(embeddings, k, block_bytes=block_bytes))


def search_blocks(
    queries: Tensor, gallery: Tensor, k: int, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[int, Neighbours]]:
    """:func:`search` in blocks of queries: ``(first query, neighbours)``; arguments are checked at once.

    Example:
        >>> for start, neighbours in search_blocks(torch.eye(20), torch.eye(20), 1, block_bytes=1):
        ...     print(start, len(neighbours.ids))
        0 16
        16 4
    """
    blocks = walk(scores.query_gallery(queries, gallery), k, block_bytes=block_bytes)
    return ((start, neighbours) for start, neighbours, _ in blocks)


def search_others_blocks(
    embeddings: Tensor, k: int, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[int, Neighbours]]:
    """:func:`search_others` in blocks of rows: ``(first row, neighbours)``; arguments are checked at once.

    Example:
        >>> [start for start, _ in search_others_blocks(torch.eye(20), 1, block_bytes=1)]
        [0, 16]
    """
    inputs = scores.leave_one_out(embeddings)
    blocks: Iterable[tuple[int, Neighbours, object]] = walk(inputs, k, block_bytes=block_bytes)
    plan = symmetric.pays(inputs, torch.full((inputs.size,), int(k)), held_bytes=block_bytes)
    swept = symmetric.sweep(inputs, plan) if plan else None
    return ((start, neighbours) for start, neighbours, _ in (blocks if swept is None else swept))


def walk(inputs: SearchInputs, k: int, *, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, Neighbours, Tensor]]:
    """Neighbours together with the ``(queries, N)`` scores of the whole gallery, block by block of queries.

    The scores, -inf where a query meets itself, are overwritten by the next block.

    Raises:
        TypeError: k is not an int.
        ValueError: k is out of range, or ``block_bytes`` not positive.
    """
    k = _check.count("k", k)
    if k > inputs.reachable:
        raise InputError(
            f"k must be at most {inputs.reachable}, the number of items that a query can find, got {k}; "
            f"ask for {inputs.reachable} or fewer"
        )
    rows = scores.rows_per_block(inputs, k, block_bytes)
    return ((start, best(block, k), block) for start, block in scores.score_blocks(inputs, rows))


def _joined(blocks: Iterator[tuple[int, Neighbours]]) -> Neighbours:
    parts = [neighbours for _, neighbours in blocks]
    return Neighbours(torch.cat([part.ids for part in parts]), torch.cat([part.scores for part in parts]))

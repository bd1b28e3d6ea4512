"""Exact nearest neighbours by cosine similarity, in blocks: all pairs are compared, few are held.

Two forms: queries against a gallery of their own (``search``), and every row of one matrix against all
others (``search_others``). The ``..._blocks`` twins hand out the answer a block of queries at a time, so
that nothing of the size queries x k has to be kept. Half precision is computed in float32; float64 stays
float64. On a GPU the products follow ``torch.get_float32_matmul_precision()``: leave it at ``"highest"`` for
exact ranks.
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

    A row of zeros has similarity 0 to everything. Equal similarities stand in order of their gallery rows.

    Args:
        queries: ``(Q, D)`` floating, of any length.
        gallery: ``(N, D)`` floating, of any length, on the same device.
        k: number of neighbours, from 1 to N.
        block_bytes: memory for the scores and neighbours of one block of queries; 16 queries are the least.

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
    """The k rows most similar to each row, the row itself left out by its number.

    A copy of the row under another number is found like any other neighbour.

    Args:
        embeddings: ``(N, D)`` floating, of any length, N at least 2.
        k: number of neighbours, from 1 to N - 1.
        block_bytes: memory for the scores and neighbours of one block of queries; 16 queries are the least. Where a
            few tens of MiB suffice for it, large searches on a CPU take half the products, see
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
    """:func:`search` in pieces: ``(number of the first query, its and the following queries' neighbours)``.

    Arguments and errors are those of :func:`search`; wrong arguments are refused at once, not at the first
    block.

    Example:
        >>> for start, found in search_blocks(torch.eye(20), torch.eye(20), 1, block_bytes=1):
        ...     print(start, len(found.ids))
        0 16
        16 4
    """
    return _found(walk(scores.query_gallery(queries, gallery), k, block_bytes=block_bytes))


def search_others_blocks(
    embeddings: Tensor, k: int, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[int, Neighbours]]:
    """:func:`search_others` in pieces: ``(number of the first row, its and the following rows' neighbours)``.

    Arguments and errors are those of :func:`search_others`; wrong arguments are refused at once, not at the
    first block.

    Example:
        >>> [start for start, found in search_others_blocks(torch.eye(20), 1, block_bytes=1)]
        [0, 16]
    """
    task = scores.leave_one_out(embeddings)
    plain = walk(task, k, block_bytes=block_bytes)
    chosen = symmetric.pays(task, torch.full((task.size,), int(k)), held_bytes=block_bytes)
    swept = symmetric.sweep(task, chosen) if chosen else None
    return _found(plain if swept is None else swept)


def walk(task: SearchInputs, k: int, *, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, Neighbours, Tensor]]:
    """The neighbours of a block of queries together with the scores of its whole gallery, block by block.

    Args:
        task: from :func:`polyanchor.search.scores.leave_one_out` or ``against``.
        k: number of neighbours.
        block_bytes: memory for one block: what :func:`polyanchor.search.scores.rows_per_block` counts.

    Returns:
        ``(number of the first query, neighbours, scores)``; the ``(queries, N)`` scores, -inf where a query
        meets itself, are overwritten when the next block is asked for.

    Raises:
        TypeError: k is not an int.
        ValueError: k is out of range, or ``block_bytes`` not positive.

    Example:
        >>> for start, found, seen in walk(scores.leave_one_out(torch.eye(20)), 1):
        ...     print(start, tuple(found.ids.shape), tuple(seen.shape))
        0 (20, 1) (20, 20)
    """
    k = _check.count("k", k)
    if k > task.reachable:
        raise InputError(
            f"k must be at most {task.reachable}, the number of items that a query can find, got {k}; "
            f"ask for {task.reachable} or fewer"
        )
    rows = scores.rows_per_block(task, k, block_bytes)
    return ((start, best(block, k), block) for start, block in scores.score_blocks(task, rows))


def _found(blocks: Iterable[tuple[int, Neighbours, object]]) -> Iterator[tuple[int, Neighbours]]:
    """The blocks without what else came with them."""
    return ((start, found) for start, found, _ in blocks)


def _joined(blocks: Iterator[tuple[int, Neighbours]]) -> Neighbours:
    """All blocks as one answer."""
    found = [neighbours for _, neighbours in blocks]
    return Neighbours(torch.cat([part.ids for part in found]), torch.cat([part.scores for part in found]))

"""Cosine scores of many queries against a gallery, a block of queries at a time.

Equal vectors must get equal scores, or rounding would break ties. A matrix product does not guarantee that: another
kernel with another order of summation runs at its ragged edges. On a CPU, copies of one vector differed in the last bit
in the last columns, and so did the same query in a block of fewer than 16 rows. So queries come in multiples of 16
rows, and the gallery is padded to a multiple of 48.

``torch.topk`` returns any of the equal values in any order; :func:`best` corrects both in the rows with ties.

Memory: the scores of a block are in one buffer; temporaries for ties and deeper ranks are made for an eighth of its
rows at a time, as they would be larger than the scores where every row has ties.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor.types import Neighbours

BLOCK_BYTES = 64 * 2**20
_PARTS = 8
_WORD = 8  # bools in an int64
_QUERY_ROWS, _GALLERY_ROWS = 16, 48
_LONG, _SHORT = 1e15, 1e-15  # beyond these the square of a length may leave the range of float32


@dataclass(frozen=True)
class SearchInputs:
    """Unit vectors to compare.

    Attributes:
        queries: ``(Q, D)`` float32 or float64.
        gallery: ``(N + padding, D)``, the padding zero.
        own: ``(Q,)`` int64, gallery row of the query itself, which is never found; None if there is none.
        size: N.
    """

    queries: Tensor
    gallery: Tensor
    own: Tensor | None
    size: int

    @property
    def reachable(self) -> int:
        """Gallery rows that a query can find."""
        return self.size - (self.own is not None)


def leave_one_out(embeddings: Tensor) -> SearchInputs:
    """Each row against all other rows; the row itself is left out by identity."""
    _check.vectors("embeddings", embeddings, rows="N")
    size = len(embeddings)
    if size == 1:
        raise InputError("embeddings must have at least 2 rows for leave-one-out, got 1; pass a gallery as well")
    _check.finite("embeddings", embeddings)
    gallery = padded_unit_rows(embeddings)
    return SearchInputs(gallery[:size], gallery, torch.arange(size, device=gallery.device), size)


def query_gallery(queries: Tensor, gallery: Tensor) -> SearchInputs:
    """Each query against every row of a gallery of its own."""
    for name, value, rows in (("queries", queries, "Q"), ("gallery", gallery, "N")):
        _check.vectors(name, value, rows=rows)
    if queries.shape[1] != gallery.shape[1]:
        raise InputError(
            f"queries and gallery must have the same width, got {queries.shape[1]} and {gallery.shape[1]}; "
            "embed both with the same model"
        )
    _check.one_device("queries", queries, "gallery", gallery)
    _check.finite("queries", queries)
    _check.finite("gallery", gallery)
    wider = torch.promote_types(queries.dtype, gallery.dtype)
    units = [padded_unit_rows(value, dtype=wider) for value in (queries, gallery)]
    return SearchInputs(units[0][: len(queries)], units[1], None, len(gallery))


def padded_unit_rows(vectors: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """Rows of length 1 (zero rows stay zero), padded with zero rows to a multiple of 48; float32 or wider.

    Unlike :func:`polyanchor.functional.unit_rows` it has no gradient, makes a single copy, and its padding makes equal
    rows score equally.
    """
    computed = torch.promote_types(dtype or vectors.dtype, torch.float32)
    padded = vectors.new_zeros(_up(len(vectors), _GALLERY_ROWS), vectors.shape[1], dtype=computed)
    unit = padded[: len(vectors)].copy_(vectors.detach())
    length = torch.linalg.vector_norm(unit, dim=1, keepdim=True)
    extreme = ((length > _LONG) | (length < _SHORT)).squeeze(1).nonzero().squeeze(1)  # zero rows are among them
    if len(extreme):
        rows = unit[extreme]
        largest = rows.abs().amax(dim=1, keepdim=True)
        unit[extreme] = rows.div_(largest.masked_fill_(largest == 0, 1.0))
        length[extreme] = torch.linalg.vector_norm(unit[extreme], dim=1, keepdim=True)
    unit.div_(length.masked_fill_(length == 0, 1.0))
    return padded


def padded_rows(vectors: Tensor) -> Tensor:
    """The rows, padded with zero rows to a multiple of 48."""
    return F.pad(vectors, (0, 0, 0, -len(vectors) % _GALLERY_ROWS))


def rows_per_block(inputs: SearchInputs, k: int, block_bytes: int) -> int:
    """Queries of a block: a multiple of 16, as many as fit, at least 16.

    Peak memory of each row, with w bytes per score:

    - for each gallery item: its score, and an eighth of what ties or deeper ranks need (up to 3 w + 8);
    - for each neighbour: its score and id (w + 8), and 24 bytes for the next block's neighbours or for the caller's
      metrics (labels, and running sums in float64).

    Args:
        inputs: the vectors.
        k: number of neighbours.
        block_bytes: the budget.

    Raises:
        ValueError: ``block_bytes`` is not a positive number.
    """
    _check.positive("block_bytes", block_bytes)
    width = inputs.gallery.element_size()
    row_bytes = len(inputs.gallery) * (width + -(-(3 * width + 8) // _PARTS)) + (k + 1) * (width + 8 + 24)
    return max(_QUERY_ROWS, int(block_bytes // row_bytes) // _QUERY_ROWS * _QUERY_ROWS)


def row_chunks(rows: Tensor, block: Tensor) -> tuple[Tensor, ...]:
    """Row numbers of a block of scores, in chunks of at most an eighth of the block."""
    return rows.split(-(-len(block) // _PARTS))


def score_blocks(inputs: SearchInputs, rows: int) -> Iterator[tuple[int, Tensor]]:
    """Yield ``(start, scores)``, scores ``(up to rows, N)`` with -inf where the query meets itself.

    The scores are overwritten by the next block.
    """
    rows = max(min(rows, _up(len(inputs.queries), _QUERY_ROWS)), _QUERY_ROWS)  # also where there is no query
    buffer = inputs.gallery.new_empty(rows, len(inputs.gallery))
    for start in range(0, len(inputs.queries), rows):
        block = inputs.queries[start : start + rows]
        padded = F.pad(block, (0, 0, 0, -len(block) % _QUERY_ROWS))
        torch.mm(padded, inputs.gallery.T, out=buffer[: len(padded)])  # with out=, autocast leaves it alone
        scores = buffer[: len(block), : inputs.size]
        if inputs.own is not None:
            row = torch.arange(len(block), device=block.device)
            scores[row, inputs.own[start : start + rows]] = -torch.inf
        yield start, scores


def product(rows: Tensor, columns: Tensor) -> Tensor:
    """``rows @ columns.T`` in their own dtype, as autocast leaves products with ``out=`` alone."""
    return torch.mm(rows, columns.T, out=rows.new_empty(len(rows), len(columns)))


def _up(number: int, step: int) -> int:
    """The next multiple of ``step``."""
    return -(-number // step) * step


def best(scores: Tensor, k: int) -> Neighbours:
    """The k best columns of each row of ``(Q, N)`` scores without NaN, as a stable sort of the whole row gives them.

    Best first, among equals the lower column first; perhaps views of wider tensors.
    """
    size = scores.shape[1]
    values, ids = scores.topk(min(k + 1, size), dim=1)
    if k < size:
        undecided = (values[:, k - 1] == values[:, k]).nonzero().squeeze(1)  # topk picks any of the equals
        values, ids = values[:, :k], ids[:, :k]
        for rows in row_chunks(undecided, scores):
            ids[rows] = _lowest(scores[rows], values[rows], ids[rows])
    unordered = (values[:, 1:] == values[:, :-1]).any(dim=1).nonzero().squeeze(1)
    for rows in row_chunks(unordered, scores):
        ids[rows] = _by_id_within_ties(values[rows], ids[rows])
    return Neighbours(ids, values)


def _lowest(scores: Tensor, values: Tensor, ids: Tensor) -> Tensor:
    """``ids`` with those of the last value replaced by the lowest columns that have this value."""
    size, k = scores.shape[1], ids.shape[1]
    last = values[:, -1:]  # (q, 1)
    column = torch.arange(size, dtype=torch.int32, device=scores.device)
    tied = torch.where(scores == last, -column, -size)  # distinct where tied, so topk is unambiguous
    lowest = -tied.topk(k, dim=1).values  # (q, k) ascending
    above = values > last  # (q, k), the first columns of each row
    index = torch.arange(k, device=scores.device) - above.sum(dim=1, keepdim=True)
    return torch.where(above, ids, lowest.gather(1, index.clamp(min=0)).long())


def _by_id_within_ties(values: Tensor, ids: Tensor) -> Tensor:
    """``ids`` in ascending order wherever neighbouring values are equal."""
    by_id = ids.argsort(dim=1)
    by_value = values.gather(1, by_id).argsort(dim=1, descending=True, stable=True)
    return ids.gather(1, by_id).gather(1, by_value)


def marked(mask: Tensor) -> Tensor:
    """Flat positions of the True values of a contiguous mask whose size is a multiple of 8, ascending.

    ``nonzero`` of bools costs more than the comparison that made them; as int64 there is an eighth of the elements,
    most 0.
    """
    words = mask.view(-1).view(torch.int64)
    at = words.nonzero().squeeze(1)
    within = words.index_select(0, at).view(torch.uint8).nonzero().squeeze(1)
    return at.mul_(_WORD).index_select(0, within >> 3).add_(within.bitwise_and_(_WORD - 1))

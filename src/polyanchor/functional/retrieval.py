"""Retrieval metrics with exact definitions: one float64 value per query, NaN where there is nothing to find.

``hits`` marks which of the first items are of the query's class, ``n_relevant`` counts such items in the whole
gallery. nDCG is in :mod:`polyanchor.functional.ndcg`.

Each function checks its inputs, which reads all of them. To compute several measures of the same hits, call
:func:`fitting` once, then the functions with its result and ``check=False``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError, InputTypeError


def recall_at_k(hits: Tensor, n_relevant: Tensor, *, check: bool = True) -> Tensor:
    r"""Recall@k as deep metric learning uses the word: 1 if any of the first k items is a hit, else 0.

    .. math:: \text{recall@}k = [\sum_{r=1}^{k} \text{hit}_r > 0]

    Elsewhere this number is called hit rate, CMC@k or accuracy@k; "recall" in information retrieval is the
    share of the relevant items that were found.

    Args:
        hits: ``(Q, k)`` bool, True where the item at that rank is relevant; rank 1 is column 0.
        n_relevant: ``(Q,)`` integer, relevant items in the whole gallery, the query itself not counted.
        check: False to skip the checks; ``n_relevant`` is then from :func:`fitting`.

    Returns:
        ``(Q,)`` float64, 0 or 1; NaN where ``n_relevant`` is 0.

    Raises:
        TypeError: ``hits`` is not bool, or ``n_relevant`` not integer.
        ValueError: shapes do not fit, or a row has more hits than ``n_relevant`` allows.

    References:
        Oh Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, CVPR 2016,
        arXiv:1511.06452; Jegou et al., Product Quantization for Nearest Neighbor Search, PAMI 2011.

    Example:
        >>> hits = torch.tensor([[False, True], [False, False], [False, False]])
        >>> recall_at_k(hits, torch.tensor([3, 1, 0]))
        tensor([1., 0., nan], dtype=torch.float64)
    """
    relevant = fitting(hits, n_relevant) if check else n_relevant
    return _where_defined(hits.any(dim=1).double(), relevant)


def precision_at_k(hits: Tensor, n_relevant: Tensor, *, check: bool = True) -> Tensor:
    r"""Precision@k: the share of hits among the first k items.

    .. math:: \text{precision@}k = \frac{1}{k} \sum_{r=1}^{k} \text{hit}_r

    The divisor is k, also where fewer than k relevant items exist: such a query cannot reach 1.

    Args:
        hits: ``(Q, k)`` bool, True where the item at that rank is relevant; rank 1 is column 0.
        n_relevant: ``(Q,)`` integer, relevant items in the whole gallery, the query itself not counted.
        check: False to skip the checks; ``n_relevant`` is then from :func:`fitting`.

    Returns:
        ``(Q,)`` float64 in [0, 1]; NaN where ``n_relevant`` is 0.

    Raises:
        TypeError: ``hits`` is not bool, or ``n_relevant`` not integer.
        ValueError: shapes do not fit, or a row has more hits than ``n_relevant`` allows.

    References:
        Manning, Raghavan, Schuetze, Introduction to Information Retrieval, 2008, section 8.4.

    Example:
        >>> precision_at_k(torch.tensor([[True, False, True, False]]), torch.tensor([2]))
        tensor([0.5000], dtype=torch.float64)
    """
    relevant = fitting(hits, n_relevant) if check else n_relevant
    return _where_defined(hits.sum(dim=1).double() / hits.shape[1], relevant)


def reciprocal_rank(first_rank: Tensor, *, check: bool = True) -> Tensor:
    r"""Reciprocal rank: 1 / rank of the first relevant item; its mean over the queries is MRR.

    .. math:: \text{RR} = 1 / \min\{r : \text{hit}_r\}

    The rank is the rank in the whole gallery, so the value does not depend on how many neighbours were kept.

    Args:
        first_rank: ``(Q,)`` integer, rank of the first relevant item, counted from 1; 0 where the gallery
            holds none.
        check: False to take int64 ranks of 0 or more as they are; saves reading them.

    Returns:
        ``(Q,)`` float64 in (0, 1]; NaN where ``first_rank`` is 0.

    Raises:
        TypeError: ``first_rank`` is not integer.
        ValueError: it is not one number per query, or negative.

    References:
        Voorhees, The TREC-8 Question Answering Track Report, 1999.

    Example:
        >>> reciprocal_rank(torch.tensor([1, 4, 0]))
        tensor([1.0000, 0.2500,    nan], dtype=torch.float64)
    """
    rank = _check.counts("first_rank", first_rank) if check else first_rank
    return _where_defined(1 / rank.double(), rank)


def r_precision(hits: Tensor, n_relevant: Tensor, *, check: bool = True) -> Tensor:
    r"""R-precision: the share of hits among the first R items, R being the query's ``n_relevant``.

    .. math:: \text{R-precision} = \frac{1}{R} \sum_{r=1}^{R} \text{hit}_r

    Args:
        hits: ``(Q, depth)`` bool with depth at least the largest R; ranks beyond R are not read.
        n_relevant: ``(Q,)`` integer, relevant items in the whole gallery, the query itself not counted.
        check: False to skip the checks; ``n_relevant`` is then from :func:`fitting`.

    Returns:
        ``(Q,)`` float64 in [0, 1]; NaN where ``n_relevant`` is 0.

    Raises:
        TypeError: ``hits`` is not bool, or ``n_relevant`` not integer.
        ValueError: shapes do not fit, ``hits`` is narrower than the largest R, or a row has more hits than
            ``n_relevant`` allows.

    References:
        Musgrave, Belongie, Lim, A Metric Learning Reality Check, ECCV 2020, arXiv:2003.08505, section 3.2.

    Example:
        >>> r_precision(torch.tensor([[True, False, True, True]]), torch.tensor([3])).round(decimals=4)
        tensor([0.6667], dtype=torch.float64)
    """
    relevant = _reaching(hits, n_relevant) if check else n_relevant
    return _where_defined(_within_r(hits, relevant).sum(dim=1).double() / relevant, relevant)


def map_at_r(hits: Tensor, n_relevant: Tensor, *, check: bool = True) -> Tensor:
    r"""Average precision at R, whose mean over the queries is MAP@R: divided by R, not by the hits found.

    .. math:: \text{MAP@R} = \frac{1}{R} \sum_{r=1}^{R} \text{hit}_r \cdot \text{precision@}r

    Args:
        hits: ``(Q, depth)`` bool with depth at least the largest R; ranks beyond R are not read.
        n_relevant: ``(Q,)`` integer, relevant items in the whole gallery, the query itself not counted.
        check: False to skip the checks; ``n_relevant`` is then from :func:`fitting`.

    Returns:
        ``(Q,)`` float64 in [0, 1]; NaN where ``n_relevant`` is 0.

    Raises:
        TypeError: ``hits`` is not bool, or ``n_relevant`` not integer.
        ValueError: shapes do not fit, ``hits`` is narrower than the largest R, or a row has more hits than
            ``n_relevant`` allows.

    References:
        Musgrave, Belongie, Lim, A Metric Learning Reality Check, ECCV 2020, arXiv:2003.08505, equation 2.

    Example:
        >>> map_at_r(torch.tensor([[True, False, True, True]]), torch.tensor([3])).round(decimals=4)
        tensor([0.5556], dtype=torch.float64)
    """
    relevant = _reaching(hits, n_relevant) if check else n_relevant
    inside = _within_r(hits, relevant)  # (Q, depth)
    rank = torch.arange(1, hits.shape[1] + 1, dtype=torch.float64, device=hits.device)
    precision = inside.cumsum(dim=1, dtype=torch.float64).div_(rank)  # precision@r, valid where inside
    total = precision.masked_fill_(~inside, 0.0).cumsum(dim=1)[:, -1]  # in order: the width changes no bit
    return _where_defined(total / relevant, relevant)


def fitting(hits: Tensor, n_relevant: Tensor) -> Tensor:
    """Check hits and counts once, for callers that compute several measures of them with ``check=False``.

    Returns ``n_relevant`` as int64.

    Raises:
        TypeError: ``hits`` is not bool, or ``n_relevant`` not integer.
        ValueError: shapes do not fit, or a row has more hits than ``n_relevant`` allows.
    """
    _check.dense("hits", hits, "shape (Q, k)")
    if hits.dtype != torch.bool:
        raise InputTypeError(
            f"hits must be a bool tensor of shape (Q, k), got {hits.dtype}; write labels[ids] == own_label"
        )
    if hits.ndim != 2 or hits.shape[1] == 0:
        raise InputError(f"hits must have shape (Q, k) with k at least 1, got {tuple(hits.shape)}")
    relevant = _check.counts("n_relevant", n_relevant, len(hits))
    _check.one_device("hits", hits, "n_relevant", relevant)
    excess = (hits.sum(dim=1) - relevant).clamp(min=0)
    if excess.any():
        row = int(excess.argmax())
        raise InputError(
            f"n_relevant must count the relevant items of the whole gallery, got {int(relevant[row])} for "
            f"query {row}, which has {int(hits[row].sum())} hits; drop the query from its own list, or count "
            "all items"
        )
    return relevant


def _reaching(hits: Tensor, n_relevant: Tensor) -> Tensor:
    """:func:`fitting`, and hits that reach as far as the largest R."""
    relevant = fitting(hits, n_relevant)
    depth, needed = hits.shape[1], int(relevant.max()) if len(relevant) else 0
    if depth < needed:
        raise InputError(
            f"hits must be as wide as the largest n_relevant, {needed}, got {depth}; search with k={needed}"
        )
    return relevant


def _within_r(hits: Tensor, n_relevant: Tensor) -> Tensor:
    """``(Q, depth)`` bool: the hits among the first R columns of each row."""
    return (torch.arange(hits.shape[1], device=hits.device) < n_relevant[:, None]).logical_and_(hits)


def _where_defined(value: Tensor, n_relevant: Tensor) -> Tensor:
    """The value where anything is relevant, NaN elsewhere."""
    return value.masked_fill(n_relevant == 0, float("nan"))

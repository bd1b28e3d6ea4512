"""Discounted cumulative gain of a ranked list and of the best possible one, and their quotient nDCG@k.

All sums run over k gains in the same order, so that a perfect list scores exactly 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError, InputTypeError


def dcg(gains: Tensor) -> Tensor:
    r"""Discounted cumulative gain of ranked lists, k being their width.

    .. math:: \text{DCG@}k = \sum_{r=1}^{k} \frac{g_r}{\log_2(r + 1)}

    The gain enters as it is. Where ``2^g - 1`` is wanted, pass that.

    Args:
        gains: ``(Q, k)`` bool, integer or floating, gain of the item at each rank; rank 1 is column 0.

    Returns:
        ``(Q,)`` float64.

    Raises:
        TypeError: ``gains`` is not a real tensor.
        ValueError: its shape is not ``(Q, k)`` with k at least 1.

    References:
        Jarvelin, Kekalainen, Cumulated Gain-Based Evaluation of IR Techniques, TOIS 20(4), 2002, with the
        discount log2(r + 1) of Burges et al., Learning to Rank using Gradient Descent, ICML 2005.

    Example:
        >>> dcg(torch.tensor([[3, 0, 1]]))  # 3 / log2(2) + 0 / log2(3) + 1 / log2(4)
        tensor([3.5000], dtype=torch.float64)
    """
    _check.real("gains", gains, "(Q, k)")
    if gains.ndim != 2 or gains.shape[1] == 0:
        raise InputError(f"gains must have shape (Q, k) with k at least 1, got {tuple(gains.shape)}")
    rank = torch.arange(1, gains.shape[1] + 1, dtype=torch.float64, device=gains.device)
    return gains.double().div((rank + 1).log2()).sum(dim=1)


def ideal_gains(gains: Tensor, counts: Tensor, *, k: int) -> Tensor:
    """The first k gains of the best possible list, from the number of items of each gain.

    With one column per class, ``gains[q, c]`` the gain of an item of class c and ``counts[q, c]`` the number
    of such items in the gallery, ``dcg(ideal_gains(...))`` is the ideal DCG over the whole gallery.

    Args:
        gains: ``(Q, C)`` bool, integer or floating, 0 or more.
        counts: ``(Q, C)`` or ``(C,)`` integer, 0 or more.
        k: length of the list, at least 1; filled with gain 0 where the gallery ends.

    Returns:
        ``(Q, k)`` float64, never increasing along a row.

    Raises:
        TypeError: ``counts`` is not integer, or k not an int.
        ValueError: shapes do not fit, k is below 1, or a gain or count is negative or not finite.

    Example:
        >>> ideal_gains(torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([2, 1, 9]), k=4)
        tensor([[3., 1., 1., 0.]], dtype=torch.float64)
    """
    k = _check.count("k", k)
    _check.real("gains", gains, "(Q, C)")
    _check.dense("counts", counts, "integers")
    if counts.is_floating_point() or counts.is_complex() or counts.dtype == torch.bool:
        raise InputTypeError(f"counts must have an integer dtype, got {counts.dtype}; call .long() on it")
    if gains.ndim != 2 or counts.shape not in (gains.shape, gains.shape[1:]):
        raise InputError(
            f"gains must have shape (Q, C) and counts (Q, C) or (C,), got {tuple(gains.shape)} and "
            f"{tuple(counts.shape)}; give one count per class"
        )
    _check.one_device("gains", gains, "counts", counts)
    worth = gains.double()
    if not ((worth >= 0) & worth.isfinite()).all() or (counts.long() < 0).any():
        raise InputError("gains and counts must be finite and 0 or more, got another; nothing is worse than no gain")
    worth = worth.masked_fill(counts == 0, 0.0)
    best, column = worth.topk(min(k, gains.shape[1]), dim=1)  # each column with gain fills at least one rank
    filled = counts.long().expand(gains.shape).gather(1, column).cumsum(dim=1)  # (Q, m) ranks taken so far
    rank = torch.arange(1, k + 1, device=gains.device).expand(len(gains), k)
    which = torch.searchsorted(filled, rank.contiguous())  # (Q, k), m where the gallery has ended
    return torch.cat([best, best.new_zeros(len(best), 1)], dim=1).gather(1, which)


def ideal_dcg_binary(n_relevant: Tensor, *, k: int) -> Tensor:
    r"""DCG@k of the best list if every relevant item has gain 1 and every other 0.

    .. math:: \text{IDCG@}k = \sum_{r=1}^{\min(k, R)} \frac{1}{\log_2(r + 1)}

    Args:
        n_relevant: ``(Q,)`` integer, relevant items in the whole gallery, the query itself not counted.
        k: length of the list, at least 1.

    Returns:
        ``(Q,)`` float64; 0 where ``n_relevant`` is 0.

    Raises:
        TypeError: ``n_relevant`` is not an integer tensor, or k not an int.
        ValueError: k is below 1, or ``n_relevant`` not one number per query, 0 or more.

    Example:
        >>> ideal_dcg_binary(torch.tensor([0, 1, 9]), k=3).round(decimals=4)
        tensor([0.0000, 1.0000, 2.1309], dtype=torch.float64)
    """
    k = _check.count("k", k)
    relevant = _check.counts("n_relevant", n_relevant)
    count, query = relevant.clamp(max=k).unique(return_inverse=True)
    best = torch.arange(k, device=count.device) < count[:, None]  # (distinct counts, k)
    return dcg(best)[query]


def ndcg_at_k(gains_at_rank: Tensor, ideal_dcg: Tensor, *, check: bool = True) -> Tensor:
    r"""Normalised discounted cumulative gain, k being the width of ``gains_at_rank``.

    .. math:: \text{nDCG@}k = \text{DCG@}k \, / \, \text{IDCG@}k

    The ideal is that of the whole gallery, not of the items found: :func:`ideal_dcg_binary` gives it for
    gains 0 and 1, ``dcg(ideal_gains(...))`` for graded ones. A query with fewer than k relevant items can
    reach 1.

    Args:
        gains_at_rank: ``(Q, k)`` bool, integer or floating, gain of the item at each rank.
        ideal_dcg: ``(Q,)`` floating, the largest DCG@k that any order of the gallery has.
        check: False where the ideals are known to be finite and 0 or more; saves reading them.

    Returns:
        ``(Q,)`` float64 in [0, 1]; NaN where ``ideal_dcg`` is 0, as no order is right or wrong there.

    Raises:
        TypeError: ``gains_at_rank`` is not a real tensor.
        ValueError: shapes do not fit, an ideal is negative, or an ideal or gain is not finite.

    References:
        Saeki, Kawahara, Aman, Multi Proxy Anchor Family Loss for Several Types of Gradients,
        arXiv:2110.03997, whose abstract proposes a measure of this name; the formula is our reading of it.

    Example:
        >>> hits = torch.tensor([[False, True, True], [True, False, False], [False, False, False]])
        >>> ndcg_at_k(hits, ideal_dcg_binary(torch.tensor([2, 1, 0]), k=3)).round(decimals=4)
        tensor([0.6934, 1.0000,    nan], dtype=torch.float64)
    """
    gained = dcg(gains_at_rank)
    _check.real("ideal_dcg", ideal_dcg, "(Q,)")
    if ideal_dcg.shape != gained.shape:
        raise InputError(f"ideal_dcg must have shape ({len(gained)},), one per query, got {tuple(ideal_dcg.shape)}")
    ideal = ideal_dcg.double()
    if check and not ((ideal >= 0) & ideal.isfinite()).all():
        raise InputError("ideal_dcg must be finite and 0 or more, got another value; gains must be 0 or more")
    if check and not gained.isfinite().all():
        raise InputError(
            "gains_at_rank must be finite, got NaN or infinity; a NaN would pass for a query without relevant items"
        )
    return (gained / ideal).masked_fill(ideal == 0, float("nan"))

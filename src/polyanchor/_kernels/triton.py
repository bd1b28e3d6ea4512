"""The push of a block in one GPU kernel: pooling, exponentials, sums and gradients without an array between them.

Written in Triton, which comes with PyTorch's CUDA builds. Imported only where it is used.
"""

# mypy: ignore-errors
# ruff: noqa: N803  -- the field's capital letters for sizes, and Triton's habit of capitals for constants

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def pool(s, real, gamma_bits, K: tl.constexpr, POOLING: tl.constexpr):
    """``(K, items)`` cosines -> ``(items,)`` pooled, and its slope by each of them."""
    top = tl.max(tl.where(real, s, -2.0), 0)
    if POOLING == "max":
        pooled = top
        best = tl.where(real & (s == top[None, :]), 1.0, 0.0)
        slope = best / tl.sum(best, 0)[None, :]
    else:
        share = tl.where(real, tl.exp2((s - top[None, :]) * gamma_bits), 0.0)
        whole = tl.sum(share, 0)
        share = share / whole[None, :]
        if POOLING == "softmax":
            pooled = tl.sum(share * s, 0)
            slope = share * (1.0 + (s - pooled[None, :]) * (gamma_bits * 0.6931471805599453))  # ln 2
        else:
            pooled = top + (tl.log2(whole) - tl.log2(K * 1.0)) / gamma_bits
            slope = share
    return pooled, slope


@triton.jit
def push_block(
    scores,  # (c, K, B) products of proxies and unit rows; gradients by these on return, if they are spread
    inverse,  # (c, K) 1 / length of the proxies
    labels,  # (B,) int64, counted from the block's first class
    pull,  # (B,) gradient with respect to the pooled cosine of item and own class
    factors,  # (B,) item-wise factors of the push; not read if BY_CLASS
    sums,  # (c,) if BY_CLASS, else (B,), to which is added
    along,  # (c, K) sum over items of gradient times cosine
    rows,  # B
    alpha_bits,  # alpha log2(e)
    gamma_bits,  # log2(e) / gamma
    one,  # exp(-alpha delta), the 1 of the logarithm in the unit of the sums
    scale,  # alpha / number of classes; used if BY_CLASS
    K: tl.constexpr,
    KP: tl.constexpr,  # the next power of two
    BT: tl.constexpr,  # items at a time
    POOLING: tl.constexpr,
    BY_CLASS: tl.constexpr,
    COLLECT: tl.constexpr,
    SPREAD: tl.constexpr,
):
    """One program takes one class: first its sum over all items, then its gradients, a chunk of the items at a time."""
    c = tl.program_id(0)
    k = tl.arange(0, KP)
    real = (k < K)[:, None]
    lines = scores + (c * K + k).to(tl.int64)[:, None] * rows
    inv = tl.load(inverse + c * K + k, mask=k < K, other=0.0)[:, None]
    total = 0.0
    if COLLECT:
        for start in range(0, rows, BT):
            i = start + tl.arange(0, BT)
            there = i < rows
            s = tl.load(lines + i[None, :], mask=real & there[None, :], other=0.0) * inv
            pooled, slope = pool(s, real, gamma_bits, K, POOLING)
            own = tl.load(labels + i, mask=there, other=-1) == c
            h = tl.where(own | (i >= rows), 0.0, tl.exp2(pooled * alpha_bits))
            if BY_CLASS:
                total += tl.sum(h, 0)
            else:
                tl.atomic_add(sums + i, h, mask=there)
        if BY_CLASS:
            tl.store(sums + c, total)
    if SPREAD:
        turn = tl.zeros([KP], dtype=tl.float32)
        for start in range(0, rows, BT):
            i = start + tl.arange(0, BT)
            there = i < rows
            s = tl.load(lines + i[None, :], mask=real & there[None, :], other=0.0) * inv
            pooled, slope = pool(s, real, gamma_bits, K, POOLING)
            if BY_CLASS:
                weight = tl.exp2(pooled * alpha_bits) * (scale / (one + total))
            else:
                weight = tl.exp2(pooled * alpha_bits) * tl.load(factors + i, mask=there, other=0.0)
            own = tl.load(labels + i, mask=there, other=-1) == c
            weight = tl.where(own, tl.load(pull + i, mask=there, other=0.0), weight)
            gradient = tl.where(real & there[None, :], slope * weight[None, :] * inv, 0.0)
            turn += tl.sum(gradient * s, 1)
            tl.store(lines + i[None, :], gradient, mask=real & there[None, :])
        tl.store(along + c * K + k, turn, mask=k < K)

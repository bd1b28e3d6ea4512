"""The Multi Proxy Anchor family of losses."""

from __future__ import annotations

import warnings
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._kernels import LossOptions, fused_loss, transformed, why_not
from polyanchor.functional.similarity import class_similarity
from polyanchor.types import Anchor, Pooling

Impl = Literal["auto", "eager", "fused"]


def log1p_sum_exp(exponents: Tensor, members: Tensor, *, dim: int) -> Tensor:
    """``log(1 + sum exp(z))`` over the members along ``dim``, without overflow; 0 over none.

    Args:
        exponents: floating.
        members: bool of the same shape; the others are left out.
        dim: the axis that is summed.

    Raises:
        TypeError: ``exponents`` are not floating.
        ValueError: ``members`` are not bool of the same shape, or there is no such axis.

    Example:
        >>> z = torch.tensor([[1000.0, 5.0], [0.0, 0.0]])
        >>> log1p_sum_exp(z, torch.tensor([[True, False], [False, False]]), dim=1)
        tensor([1000.,    0.])
    """
    _check.floating("exponents", exponents, "any number of axes")
    _check.dense("members", members, "bools")
    if members.dtype != torch.bool or members.shape != exponents.shape:
        raise InputError(
            f"members must be bool of shape {tuple(exponents.shape)}, got {members.dtype} of {tuple(members.shape)}"
        )
    if isinstance(dim, bool) or not isinstance(dim, int) or not -exponents.ndim <= dim < exponents.ndim:
        raise InputError(f"dim must be one of the {exponents.ndim} axes of exponents, got {dim!r}")
    return _log1p_sum_exp(exponents, members, dim % exponents.ndim)


def _log1p_sum_exp(exponents: Tensor, members: Tensor, dim: int) -> Tensor:
    kept = exponents.masked_fill(~members, -torch.inf)
    zero = kept.new_zeros(()).expand(*kept.shape[:dim], 1, *kept.shape[dim + 1 :])  # exp(0) is the 1
    return torch.logsumexp(torch.cat([zero, kept], dim), dim)


def anchor_loss(
    similarity: Tensor, labels: Tensor, *, anchor: Anchor = "class", alpha: float = 32.0, delta: float = 0.1
) -> Tensor:
    r"""The family as a function of the pooled cosines :math:`S_{ic}`; see :func:`multi_proxy_anchor_loss`.

    Its gradient in closed form, with :math:`h_{ic}` the exponential that the row of the table sums:

    .. math::
        \text{class pull:}\quad & -\frac{\alpha}{|C^+|} \frac{h_{i c}}{1 + \sum_{j: y_j = c} h_{jc}} &
        \text{data pull:}\quad & -\frac{\alpha}{B} \frac{h_{i y_i}}{1 + h_{i y_i}} \\
        \text{class push:}\quad & \frac{\alpha}{C} \frac{h_{ic}}{1 + \sum_{j: y_j \ne c} h_{jc}} &
        \text{data push:}\quad & \frac{\alpha}{B} \frac{h_{ic}}{1 + \sum_{d \ne y_i} h_{id}}

    Args:
        similarity: ``(B, C)`` floating, in [-1, 1].
        labels: ``(B,)`` int64 in ``[0, C)``.
        anchor: which member of the family.
        alpha: sharpness, > 0.
        delta: margin in cosine units.

    Returns:
        ``()`` loss in the dtype of ``similarity``.

    Raises:
        TypeError: a dtype is not as above.
        ValueError: a shape or an option is not as above; on CPU tensors also a label outside ``[0, C)``, or a
            similarity that is not finite.

    Example:
        >>> anchor_loss(torch.eye(2), torch.tensor([0, 1]), anchor="data").round(decimals=4)
        tensor(3.2400)
    """
    _check.one_of("anchor", anchor, get_args(Anchor))
    alpha, delta = _check.positive("alpha", alpha), _check.finite_number("delta", delta)
    _check.vectors("similarity", similarity)
    labels = _check.integer_labels("labels", labels, len(similarity))
    _check.one_device("similarity", similarity, "labels", labels)
    if _check.readable(similarity, labels):
        _check.class_range(labels, similarity.shape[1])
        _check.finite("similarity", similarity)
    return _anchor_loss(similarity, labels, LossOptions(anchor, alpha, delta))


def _anchor_loss(similarity: Tensor, labels: Tensor, options: LossOptions) -> Tensor:
    classes, alpha, delta = similarity.shape[1], options.alpha, options.delta
    own = labels[:, None] == torch.arange(classes, device=labels.device)  # (B, C)
    pull, push = -alpha * (similarity - delta), alpha * (similarity + delta)
    if options.pull_by_class:
        pulled = _log1p_sum_exp(pull, own, 0).sum() / own.any(dim=0).sum()
    else:  # one positive per item: LSE0 of a single exponent is the softplus
        pulled = F.softplus(pull.gather(1, labels[:, None])).mean()
    if options.push_by_class:
        pushed = _log1p_sum_exp(push, ~own, 0).sum() / classes
    else:
        pushed = _log1p_sum_exp(push, ~own, 1).mean()
    return pulled + pushed


def multi_proxy_anchor_loss(
    embeddings: Tensor,
    proxies: Tensor,
    labels: Tensor,
    *,
    anchor: Anchor = "class",
    alpha: float = 32.0,
    delta: float = 0.1,
    gamma: float = 0.1,
    pooling: Pooling = "softmax",
    impl: Impl = "auto",
) -> Tensor:
    r"""Loss of the Multi Proxy Anchor family.

    With the pooled cosine :math:`S_{ic}` of :func:`~polyanchor.functional.class_similarity`,
    :math:`\operatorname{LSE0}(z) = \log(1 + \sum e^z)` and :math:`C^+` the classes present in the batch, the loss
    is a pull plus a push:

    .. math::
        \text{class pull} &= \frac{1}{|C^+|} \sum_{c \in C^+}
            \operatorname{LSE0}_{i: y_i = c} \bigl(-\alpha (S_{ic} - \delta)\bigr) \\
        \text{class push} &= \frac{1}{C} \sum_c
            \operatorname{LSE0}_{i: y_i \ne c} \bigl(\alpha (S_{ic} + \delta)\bigr) \\
        \text{data pull} &= \frac{1}{B} \sum_i \operatorname{LSE0} \bigl(-\alpha (S_{i y_i} - \delta)\bigr) \\
        \text{data push} &= \frac{1}{B} \sum_i
            \operatorname{LSE0}_{c \ne y_i} \bigl(\alpha (S_{ic} + \delta)\bigr)

    ``anchor="class"`` takes both from the class, ``"data"`` both from the item, ``"mixed"`` pulls class-wise and
    pushes data-wise. ``"class"`` with one proxy per class is Proxy Anchor exactly. Always computed in float32 or
    wider, even under autocast; twice differentiable where no row is zero (``impl="fused"``: once).

    Args:
        embeddings: ``(B, D)`` floating, of any length (cosines are taken).
        proxies: ``(C, K, D)`` floating, of any length.
        labels: ``(B,)`` class numbers in ``[0, C)``, any integer dtype.
        anchor: which member of the family.
        alpha: sharpness, > 0, dimensionless.
        delta: margin in cosine units.
        gamma: width of the soft assignment to local centres, > 0, in cosine units.
        pooling: ``"softmax"``, ``"max"`` or ``"logsumexp"``, see :func:`~polyanchor.functional.pool`.
        impl: ``"eager"``: plain PyTorch, keeps several ``(B, C, K)`` tensors. ``"fused"``: loss and gradients in the
            forward pass, from one sweep over blocks of classes with three matrix products and a few MiB besides the
            gradients; a backward with ``create_graph=True``, a transform of ``torch.func`` and forward-mode tangents
            are errors. Where it is unavailable, a warning gives the reason and ``"eager"`` is used. ``"auto"``:
            ``"fused"`` on a CPU, except that ``"eager"`` answers the three cases above; ``"eager"`` on other devices,
            where the fused loss (Triton, CUDA) has not been measured yet.

    Returns:
        ``()`` loss in the wider dtype of the inputs, at least float32.

    Raises:
        TypeError: a dtype is not as above.
        ValueError: a shape or an option is not as above; on CPU tensors also a label outside ``[0, C)`` or an
            embedding or proxy that is not finite. On other devices (where reading values would stall every step) and
            inside ``torch.vmap`` such a batch gives a NaN loss, with zero gradients for embeddings and proxies if the
            batch is at fault; on a device :class:`~polyanchor.MultiProxyAnchorLoss` raises the error at a later call.

    References:
        The family is named in Saeki, Kawahara, Aman: Multi Proxy Anchor Family Loss for Several Types of
        Gradients, arXiv:2110.03997; the formulas are this project's own reading of its abstract. Proxy Anchor:
        Kim et al., CVPR 2020, arXiv:2003.13911, Eq. 4.

    Example:
        >>> x, p = torch.eye(2), torch.eye(2)[:, None]
        >>> multi_proxy_anchor_loss(x, p, torch.tensor([0, 1]), anchor="class").round(decimals=4)
        tensor(3.2400)
    """
    _check.one_of("anchor", anchor, get_args(Anchor))
    _check.one_of("impl", impl, get_args(Impl))
    _check.one_of("pooling", pooling, get_args(Pooling))
    alpha, gamma = _check.positive("alpha", alpha), _check.positive("gamma", gamma)
    delta = _check.finite_number("delta", delta)
    labels = _check.loss_inputs(embeddings, proxies, labels)
    if impl == "auto" and transformed(embeddings, proxies):
        impl = "eager"
    with torch.autocast(embeddings.device.type, enabled=False):
        options = LossOptions(anchor, alpha, delta, gamma, pooling)
        if not _check.readable(embeddings, proxies, labels):
            return guarded_loss(embeddings, proxies, labels, options, impl)
        _check.finite("embeddings", embeddings)
        _check.class_range(labels, len(proxies))
        loss = _loss(embeddings, proxies, labels, options, impl)
        _check.finite_proxies(proxies, loss)
        return loss


def batch_is_usable(embeddings: Tensor, labels: Tensor, classes: int) -> Tensor:
    """``()`` bool on the tensors' device: embeddings are finite and labels in ``[0, classes)``. Never synchronises."""
    return embeddings.isfinite().all() & (labels >= 0).all() & (labels < classes).all()


def guarded_loss(
    embeddings: Tensor, proxies: Tensor, labels: Tensor, options: LossOptions, impl: Impl = "auto"
) -> Tensor:
    """The loss without reading values on the host: NaN, with zero gradients, for an unusable batch."""
    usable = batch_is_usable(embeddings, labels, len(proxies))
    loss = _loss(embeddings.where(usable, 0), proxies, labels.where(usable, 0), options, impl)
    return loss.where(usable, torch.nan)


def _loss(embeddings: Tensor, proxies: Tensor, labels: Tensor, options: LossOptions, impl: Impl) -> Tensor:
    wide = torch.promote_types(torch.promote_types(embeddings.dtype, proxies.dtype), torch.float32)

    def eager(embeddings: Tensor, proxies: Tensor) -> Tensor:
        similarity = class_similarity(embeddings, proxies, pooling=options.pooling, gamma=options.gamma)
        return _anchor_loss(similarity, labels, options)

    embeddings, proxies = embeddings.to(wide), proxies.to(wide)
    if impl == "eager" or (impl == "auto" and embeddings.device.type != "cpu"):
        return eager(embeddings, proxies)
    if reason := why_not(embeddings.device, wide, options):
        warnings.warn(f"impl='fused' falls back to 'eager': {reason}", stacklevel=3)
        return eager(embeddings, proxies)
    return fused_loss(embeddings, proxies, labels, options, twin=eager if impl == "auto" else None)

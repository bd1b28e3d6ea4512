"""The module that owns the proxies; the maths is :func:`polyanchor.functional.multi_proxy_anchor_loss`."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor, nn

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor.functional import Anchor, Impl, Pooling, center_regularizer, multi_proxy_anchor_loss
from polyanchor.losses.async_checks import AsyncChecks
from polyanchor.losses.base import EmbeddingLoss
from polyanchor.losses.proxies import Init, draw_proxies


class MultiProxyAnchorLoss(EmbeddingLoss):
    r"""Multi Proxy Anchor loss with K learnable proxies (local centres) for each of C classes.

    ``"class"`` with ``proxies_per_class=1`` and ``init="kaiming"`` is Proxy Anchor as published. See
    :func:`polyanchor.functional.multi_proxy_anchor_loss` for the formulas.

    **Length of the proxies.** Only the direction of a proxy enters the loss, so its length sets how far one
    optimizer step turns it: under Adam by about ``learning_rate * sqrt(D) / length`` radians. ``init="fixed"``
    starts every proxy at length 1 whatever C and K, so a learning rate means the same for every problem.
    ``init="kaiming"`` is the published ``kaiming_normal_(mode="fan_out")`` on the ``(C K, D)`` matrix, of length
    about ``sqrt(2 D / (C K))``: it shrinks, and the proxies spin faster, as C and K grow.

    Proxies, their gradients and their optimizer state always stay in float32 (float64 if the module is moved there),
    even under autocast and after a half-precision or float64 batch.

    Args:
        num_classes: C, training classes, numbered from 0.
        embedding_dim: D, columns of the embeddings.
        proxies_per_class: K, local centres of a class.
        anchor: ``"class"``, ``"data"`` or ``"mixed"``.
        alpha: sharpness, > 0.
        delta: margin in cosine units.
        gamma: width of the soft assignment to local centres, in cosine units, > 0.
        pooling: ``"softmax"``, ``"max"`` or ``"logsumexp"``.
        init: ``"fixed"`` or ``"kaiming"``, see above.
        impl: ``"auto"``, ``"eager"`` or ``"fused"``.
        center_reg: weight, 0 or more, of :func:`polyanchor.functional.center_regularizer`, which merges redundant local
            centres of a class.

    Attributes:
        proxies: Parameter ``(C, K, D)``.

    Raises:
        TypeError: ``forward`` got a wrong dtype.
        ValueError: an option, shape, label or value is wrong. On an accelerator, labels out of range and
            embeddings that are not finite give a NaN loss with zero gradients for embeddings and proxies, and the error
            is raised by a later call, once the device has reported it, at the latest by :meth:`check`; no step waits.
            Inside a CUDA graph, ``torch.compile`` or a transform of ``torch.func`` there is only the NaN.

    References:
        Saeki, Kawahara, Aman, arXiv:2110.03997 (the family); Kim et al., CVPR 2020 (K = 1, ``"class"``).

    Example:
        >>> _ = torch.manual_seed(0)
        >>> loss = MultiProxyAnchorLoss(num_classes=3, embedding_dim=8, proxies_per_class=2, anchor="mixed")
        >>> loss(torch.randn(4, 8), torch.tensor([0, 0, 1, 2])).shape
        torch.Size([])
        >>> loss.proxies.shape
        torch.Size([3, 2, 8])
    """

    proxies: nn.Parameter

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        *,
        proxies_per_class: int = 10,
        anchor: Anchor = "class",
        alpha: float = 32.0,
        delta: float = 0.1,
        gamma: float = 0.1,
        pooling: Pooling = "softmax",
        init: Init = "fixed",
        impl: Impl = "auto",
        center_reg: float = 0.0,
    ) -> None:
        super().__init__()
        num_classes = _check.count("num_classes", num_classes)
        embedding_dim = _check.count("embedding_dim", embedding_dim)
        proxies_per_class = _check.count("proxies_per_class", proxies_per_class)
        _check.one_of("anchor", anchor, get_args(Anchor))
        _check.one_of("pooling", pooling, get_args(Pooling))
        _check.one_of("init", init, get_args(Init))
        _check.one_of("impl", impl, get_args(Impl))
        alpha, gamma = _check.positive("alpha", alpha), _check.positive("gamma", gamma)
        delta, center_reg = _check.finite_number("delta", delta), _check.number("center_reg", center_reg)
        if not 0 <= center_reg < float("inf"):
            raise InputError(f"center_reg must be a finite number of 0 or more, got {center_reg!r}")
        self.anchor, self.alpha, self.delta, self.gamma = anchor, alpha, delta, gamma
        self.pooling, self.init, self.impl, self.center_reg = pooling, init, impl, center_reg
        self.proxies = nn.Parameter(torch.empty(num_classes, proxies_per_class, embedding_dim, dtype=torch.float32))
        self._checks = AsyncChecks()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the proxies anew from torch's global generator."""
        with torch.no_grad():
            draw_proxies(self.proxies, self.init, classes=len(self.proxies))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """``(B, D)`` embeddings of any length and ``(B,)`` integer labels -> ``()`` loss."""
        self._checks.poll()
        loss = multi_proxy_anchor_loss(
            embeddings,
            self.proxies,
            labels,
            anchor=self.anchor,
            alpha=self.alpha,
            delta=self.delta,
            gamma=self.gamma,
            pooling=self.pooling,
            impl=self.impl,
        )
        if self.center_reg > 0:
            penalty = self.center_reg * center_regularizer(self.proxies)
            loss = loss + penalty.where(loss.isfinite(), 0)  # an unusable batch gives the proxies no gradient at all
        if embeddings.device.type != "cpu":
            self._checks.enqueue(embeddings, labels, len(self.proxies), loss)
        return loss

    def check(self) -> None:
        """Wait for the device and raise what is wrong with any batch so far; costs a synchronisation."""
        self._checks.poll(wait=True)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MultiProxyAnchorLoss:
        # model.half() on a module that holds this one must not round the proxies: they follow the device alone.
        def keep_width(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype.itemsize >= 4 else tensor.to(moved.device)

        return super()._apply(keep_width, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def extra_repr(self) -> str:
        """The options, for ``print(module)``."""
        classes, centres, dim = self.proxies.shape
        return (
            f"num_classes={classes}, embedding_dim={dim}, proxies_per_class={centres}, "
            f"anchor={self.anchor!r}, alpha={self.alpha}, delta={self.delta}, gamma={self.gamma}, "
            f"pooling={self.pooling!r}, init={self.init!r}, impl={self.impl!r}, center_reg={self.center_reg}"
        )

"""The loss steps that are measured: ours, the peers', the three products, all on the same tensors.

A step is forward and backward with gradients for embeddings and proxies. It begins by dropping the gradients of the
step before, as ``optimizer.zero_grad()`` does, so that making room for new ones is part of its time.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn

import polyanchor as pa

Step = Callable[[], Tensor]
ANCHORS = "class", "data", "mixed"
PRODUCTS, SQUARE = "three products", "same operations in a square product"
PROXY_ANCHOR, SOFT_TRIPLE = "pytorch-metric-learning ProxyAnchorLoss", "pytorch-metric-learning SoftTripleLoss"
ARC_FACE = "open-metric-learning ArcFaceLoss"


class Problem:
    """Random embeddings, labels and unit proxies; ``B x D`` items, ``C x K x D`` proxies, one set for everybody."""

    def __init__(self, batch: int, classes: int, centres: int, dim: int = 512) -> None:
        torch.manual_seed(0)
        self.batch, self.classes, self.centres, self.dim = batch, classes, centres, dim
        self.embeddings = torch.randn(batch, dim, requires_grad=True)
        self.labels = torch.randint(classes, (batch,))
        # one parameter for all modules of ours: at C 100,000 a copy for each would fill the memory of a small machine
        self.proxies = nn.Parameter(nn.functional.normalize(torch.randn(classes, centres, dim), dim=2))

    @property
    def case(self) -> dict[str, int]:
        """The shapes, as the file of results names them."""
        return {"B": self.batch, "D": self.dim, "C": self.classes, "K": self.centres}

    @property
    def operations(self) -> int:
        """Floating-point operations of the three products."""
        return 3 * 2 * self.batch * self.classes * self.centres * self.dim

    def gradient_bytes(self) -> int:
        """What the gradients take: they are the result, not extra memory."""
        return self.embeddings.nbytes + self.proxies.nbytes

    def step(self, loss: nn.Module, weight: nn.Parameter) -> Step:
        """Forward and backward of ``loss``, whose proxies are ``weight``."""

        def run() -> Tensor:
            self.embeddings.grad = None
            weight.grad = None
            value = loss(self.embeddings, self.labels)
            value.backward()
            return value.detach()

        return run

    def ours(self, anchor: str, impl: str = "auto") -> Step:
        """A step of ours."""
        loss = pa.MultiProxyAnchorLoss(2, self.dim, proxies_per_class=self.centres, anchor=anchor, impl=impl)
        loss.proxies = self.proxies
        return self.step(loss, self.proxies)

    def products(self) -> Step:
        """X P', G P and G' X at full size into memory that is already there: what any exact loss must compute."""
        x, p = self.embeddings.detach(), self.proxies.detach().flatten(0, 1)
        scores, of_items, of_proxies = torch.rand(len(x), len(p)), torch.empty_like(x), torch.empty_like(p)
        upstream = torch.rand(len(x), len(p))

        def run() -> Tensor:
            torch.mm(x, p.t(), out=scores)
            torch.mm(upstream, p, out=of_items)
            return torch.mm(upstream.t(), x, out=of_proxies)

        return run

    def proxy_anchor(self) -> Step | None:
        """PML's Proxy Anchor: one proxy a class, the same loss as ours with ``anchor="class"``."""
        if self.centres > 1 or find_spec("pytorch_metric_learning") is None:
            return None
        from pytorch_metric_learning.losses import ProxyAnchorLoss

        loss = ProxyAnchorLoss(1, self.dim)
        loss.num_classes, loss.proxies = self.classes, nn.Parameter(self.proxies.detach().flatten(0, 1))
        return self.step(loss, loss.proxies)

    def soft_triple(self) -> Step | None:
        """PML's SoftTriple: several centres a class with the same pooling, then a soft-max over the classes."""
        if self.centres == 1 or find_spec("pytorch_metric_learning") is None:
            return None
        from pytorch_metric_learning.losses import SoftTripleLoss

        loss = SoftTripleLoss(1, self.dim, centers_per_class=self.centres)
        loss.num_classes = self.classes
        loss.fc = nn.Parameter(self.proxies.detach().flatten(0, 1).t().contiguous())  # (D, C K) is its layout
        return self.step(loss, loss.fc)

    def arc_face(self) -> Step | None:
        """OML's only loss with a weight vector a class; another formula (soft-max with an angular margin)."""
        if self.centres > 1 or find_spec("oml") is None:
            return None
        from oml.losses import ArcFaceLoss

        loss = ArcFaceLoss(self.dim, 1)
        loss.num_classes, loss.weight = self.classes, nn.Parameter(self.proxies.detach().flatten(0, 1))
        return self.step(loss, loss.weight)

    def peers(self) -> dict[str, Step]:
        """Those that are installed and can do K centres."""
        found = {PROXY_ANCHOR: self.proxy_anchor(), SOFT_TRIPLE: self.soft_triple(), ARC_FACE: self.arc_face()}
        return {name: step for name, step in found.items() if step is not None}

"""The losses and their own parameters: a table of keys for each, chosen by ``loss.name``.

The defaults of the baselines are those of the papers, or of pytorch-metric-learning where a paper names none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from polyanchor._errors import InputError
from polyanchor.training.section import Above0, AtLeast0, Count, Finite, Section


class MultiProxyAnchor(Section):
    """The Multi Proxy Anchor family; ``anchor = "class"`` with one proxy per class is Proxy Anchor."""

    name: Literal["multi-proxy-anchor"] = "multi-proxy-anchor"
    """The family of this package; all other names are pytorch-metric-learning's."""
    anchor: Literal["class", "data", "mixed"] = "class"
    """Member of the Multi Proxy Anchor family."""
    proxies_per_class: Count = 10
    """Local centres of a class, K."""
    alpha: Above0 = 32.0
    """Sharpness."""
    delta: Finite = 0.1
    """Margin, in cosine units."""
    gamma: Above0 = 0.1
    """Width of the soft assignment to local centres, in cosine units."""
    pooling: Literal["softmax", "max", "logsumexp"] = "softmax"
    """How a class's local centres become one similarity."""
    init: Literal["fixed", "kaiming"] = "fixed"
    """Length 1 for every proxy, or the published initialisation."""
    merging: AtLeast0 = 0.0
    """Weight of the penalty that merges local centres of a class, as SoftTriple's tau; 0: none."""
    proxy_sharding: Literal["none", "class"] = "none"
    """`class`: each device holds some of the classes' proxies, with their optimizer state; the loss is the same."""
    negative_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Below 1, an approximation: share of the classes without an item that take part in a step; needs sharding."""

    @model_validator(mode="after")
    def _can_be_sampled(self) -> MultiProxyAnchor:
        if self.negative_share < 1 and self.proxy_sharding == "none":
            raise InputError(
                f"loss.negative_share = {self.negative_share} needs loss.proxy_sharding = 'class', on one device too"
            )
        if self.negative_share < 1 and self.merging > 0:
            raise InputError("loss.merging is a mean over all proxies; set loss.negative_share to 1 with it")
        return self


class ProxyNca(Section):
    """Proxy-NCA: Movshovitz-Attias et al., ICCV 2017."""

    name: Literal["proxy-nca"]
    scale: Above0 = 3.0
    """Factor of the squared distances; 1 in the paper, 3 in its successor ProxyNCA++."""


class NormSoftmax(Section):
    """NormSoftmax: Zhai and Wu, BMVC 2019."""

    name: Literal["normsoftmax"]
    temperature: Above0 = 0.05
    """Divisor of the cosines."""


class SoftTriple(Section):
    """SoftTriple with its regulariser: Qian et al., ICCV 2019; constants of the released code."""

    name: Literal["softtriple"]
    proxies_per_class: Count = 10
    """Centres of a class, K."""
    scale: Above0 = 20.0
    """Factor of the similarities, lambda of the paper."""
    gamma: Above0 = 0.1
    """Width of the soft assignment to centres, in cosine units."""
    margin: Finite = 0.01
    """Margin, delta of the paper, in cosine units."""
    merging: AtLeast0 = 0.2
    """Weight of the regulariser that merges centres of a class, tau of the paper."""


class ArcFace(Section):
    """ArcFace: Deng et al., CVPR 2019."""

    name: Literal["arcface"]
    margin: AtLeast0 = 28.6
    """Angular margin in degrees."""
    scale: Above0 = 64.0
    """Factor of the cosines."""


class SubCenterArcFace(Section):
    """Sub-center ArcFace: Deng et al., ECCV 2020."""

    name: Literal["subcenter-arcface"]
    proxies_per_class: Count = 3
    """Sub-centres of a class, K."""
    margin: AtLeast0 = 28.6
    """Angular margin in degrees."""
    scale: Above0 = 64.0
    """Factor of the cosines."""


class ProxyAnchor(Section):
    """Proxy Anchor as pytorch-metric-learning has it: Kim et al., CVPR 2020."""

    name: Literal["proxy-anchor"]
    alpha: Above0 = 32.0
    """Sharpness."""
    delta: Finite = 0.1
    """Margin, in cosine units."""


class MultiSimilarity(Section):
    """Multi-Similarity with its miner: Wang et al., CVPR 2019."""

    name: Literal["multi-similarity"]
    alpha: Above0 = 2.0
    """Sharpness of the positive pairs."""
    beta: Above0 = 50.0
    """Sharpness of the negative pairs."""
    base: Finite = 0.5
    """Similarity around which both are measured, in cosine units."""
    epsilon: AtLeast0 = 0.1
    """Margin of the miner, in cosine units."""


class SupCon(Section):
    """Supervised contrastive loss: Khosla et al., NeurIPS 2020."""

    name: Literal["supcon"]
    temperature: Above0 = 0.1
    """Divisor of the cosines."""


class Triplet(Section):
    """Triplet loss on semi-hard triplets: Schroff et al., CVPR 2015."""

    name: Literal["triplet"]
    margin: Above0 = 0.2
    """Margin of loss and miner, a distance of unit vectors."""


class Contrastive(Section):
    """Contrastive loss: Hadsell et al., CVPR 2006."""

    name: Literal["contrastive"]
    positive: AtLeast0 = 0.0
    """Distance of unit vectors below which a positive pair costs nothing."""
    negative: Above0 = 0.5
    """Distance of unit vectors above which a negative pair costs nothing."""


Baselines = (
    ProxyNca
    | NormSoftmax
    | SoftTriple
    | ArcFace
    | SubCenterArcFace
    | ProxyAnchor
    | MultiSimilarity
    | SupCon
    | Triplet
    | Contrastive
)
LOSSES: Mapping[str, type[Section]] = {
    get_args(kind.model_fields["name"].annotation)[0]: kind for kind in (MultiProxyAnchor, *get_args(Baselines))
}
"""Name -> its table of keys."""
Loss = Annotated[MultiProxyAnchor | Baselines, Field(discriminator="name")]

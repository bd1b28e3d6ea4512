"""Losses as modules: each owns its proxies and nothing else."""

from typing import TYPE_CHECKING

from polyanchor._optional import lazy_names

if TYPE_CHECKING:
    from polyanchor.losses.multi_proxy_anchor import MultiProxyAnchorLoss as MultiProxyAnchorLoss
    from polyanchor.losses.pml import PmlLoss as PmlLoss
    from polyanchor.losses.pml import pml_loss as pml_loss
    from polyanchor.losses.proxies import draw_proxies as draw_proxies
    from polyanchor.losses.proxies import fixed_lengths as fixed_lengths

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "multi_proxy_anchor": ["MultiProxyAnchorLoss"],
        "pml": ["PmlLoss", "pml_loss"],
        "proxies": ["draw_proxies", "fixed_lengths"],
    },
)

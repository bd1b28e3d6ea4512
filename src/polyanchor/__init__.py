"""polyanchor: deep metric learning with the Multi Proxy Anchor family.

The whole public surface stands on this page. Names are imported when first used, so that
``polyanchor --help`` answers without importing torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polyanchor import functional as functional
    from polyanchor.deploy.embedder import Embedder as Embedder
    from polyanchor.index.index import Index as Index
    from polyanchor.losses.multi_proxy_anchor import MultiProxyAnchorLoss as MultiProxyAnchorLoss
    from polyanchor.metrics.retrieval import evaluate_retrieval as evaluate_retrieval
    from polyanchor.metrics.torchmetrics import RetrievalMetrics as RetrievalMetrics
    from polyanchor.models.grad_cache import embed_in_micro_batches as embed_in_micro_batches
    from polyanchor.types import Embeddings as Embeddings
    from polyanchor.types import Neighbours as Neighbours
    from polyanchor.types import RetrievalReport as RetrievalReport

__version__ = "0.1.0"

_HOME = {  # public name -> (module, name there; None for the module itself)
    "functional": ("functional", None),
    "MultiProxyAnchorLoss": ("losses.multi_proxy_anchor", "MultiProxyAnchorLoss"),
    "evaluate_retrieval": ("metrics.retrieval", "evaluate_retrieval"),
    "embed_in_micro_batches": ("models.grad_cache", "embed_in_micro_batches"),
    "RetrievalMetrics": ("metrics.torchmetrics", "RetrievalMetrics"),
    "Embedder": ("deploy.embedder", "Embedder"),
    "Index": ("index.index", "Index"),
    "Embeddings": ("types", "Embeddings"),
    "Neighbours": ("types", "Neighbours"),
    "RetrievalReport": ("types", "RetrievalReport"),
}

# These need more than torch, so `from polyanchor import *` leaves them out
_EXTRA = "Embedder", "Index", "RetrievalMetrics"
__all__ = ["__version__", *(name for name in _HOME if name not in _EXTRA)]


def __getattr__(name: str) -> object:
    """Import a public name from its home when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'polyanchor' has no attribute {name!r}")
    module, attribute = _HOME[name]
    home = importlib.import_module(f"polyanchor.{module}")
    value = home if attribute is None else getattr(home, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, for completion at the prompt."""
    return sorted({*__all__, *_HOME})

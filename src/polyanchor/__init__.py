"""polyanchor: deep metric learning with the Multi Proxy Anchor family.

This page and its subpackages are the public surface; deeper modules may change. Names are imported when first used,
so that ``polyanchor --help`` answers without importing torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polyanchor._optional import lazy_names

if TYPE_CHECKING:
    from polyanchor import analysis as analysis
    from polyanchor import compare as compare
    from polyanchor import datasets as datasets
    from polyanchor import deploy as deploy
    from polyanchor import distributed as distributed
    from polyanchor import functional as functional
    from polyanchor import index as index
    from polyanchor import losses as losses
    from polyanchor import metrics as metrics
    from polyanchor import models as models
    from polyanchor import runs as runs
    from polyanchor import samplers as samplers
    from polyanchor import search as search
    from polyanchor import stats as stats
    from polyanchor.config.loading import load_config as load_config
    from polyanchor.config.schema import Config as Config
    from polyanchor.deploy.embedder import Embedder as Embedder
    from polyanchor.index.index import Index as Index
    from polyanchor.losses.multi_proxy_anchor import MultiProxyAnchorLoss as MultiProxyAnchorLoss
    from polyanchor.metrics.retrieval import evaluate_retrieval as evaluate_retrieval
    from polyanchor.metrics.torchmetrics import RetrievalMetrics as RetrievalMetrics
    from polyanchor.models.grad_cache import embed_in_micro_batches as embed_in_micro_batches
    from polyanchor.training.train import train as train
    from polyanchor.types import Embeddings as Embeddings
    from polyanchor.types import Interval as Interval
    from polyanchor.types import Neighbours as Neighbours
    from polyanchor.types import RetrievalReport as RetrievalReport

__version__ = "0.1.0"

_CORE = {  # needs torch alone: what `from polyanchor import *` gives
    "": ["datasets", "distributed", "functional", "losses", "metrics", "models", "samplers", "search", "stats"],
    "losses.multi_proxy_anchor": ["MultiProxyAnchorLoss"],
    "metrics.retrieval": ["evaluate_retrieval"],
    "models.grad_cache": ["embed_in_micro_batches"],
    "types": ["Embeddings", "Interval", "Neighbours", "RetrievalReport"],
}
_EXTRA = {
    "config.loading": ["load_config"],
    "config.schema": ["Config"],
    "deploy.embedder": ["Embedder"],
    "index.index": ["Index"],
    "metrics.torchmetrics": ["RetrievalMetrics"],
    "training.train": ["train"],
}
_EXTRA_PAGES = ["analysis", "compare", "deploy", "index", "runs"]

__getattr__, __dir__, _ = lazy_names(__name__, {**_CORE, **_EXTRA, "": [*_CORE[""], *_EXTRA_PAGES]})
__all__ = ["__version__", *(name for names in _CORE.values() for name in names)]

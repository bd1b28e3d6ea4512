"""Retrieval metrics: one value per query, and their means."""

from typing import TYPE_CHECKING

from polyanchor._optional import lazy_names

if TYPE_CHECKING:
    from polyanchor.metrics.relevance import gains_at_rank as gains_at_rank
    from polyanchor.metrics.relevance import hits_at_rank as hits_at_rank
    from polyanchor.metrics.relevance import ideal_dcg_graded as ideal_dcg_graded
    from polyanchor.metrics.relevance import relevant_counts as relevant_counts
    from polyanchor.metrics.retrieval import evaluate_retrieval as evaluate_retrieval
    from polyanchor.metrics.torchmetrics import RetrievalMetrics as RetrievalMetrics

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "relevance": ["gains_at_rank", "hits_at_rank", "ideal_dcg_graded", "relevant_counts"],
        "retrieval": ["evaluate_retrieval"],
        "torchmetrics": ["RetrievalMetrics"],
    },
)

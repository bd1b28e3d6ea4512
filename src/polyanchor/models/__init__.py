"""Networks that turn a batch of inputs into unit vectors."""

from typing import TYPE_CHECKING

from polyanchor._optional import lazy_names

if TYPE_CHECKING:
    from polyanchor.models.embedding import EmbeddingModel as EmbeddingModel
    from polyanchor.models.embedding import create_model as create_model
    from polyanchor.models.grad_cache import embed_in_micro_batches as embed_in_micro_batches

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "embedding": ["EmbeddingModel", "create_model"],
        "grad_cache": ["embed_in_micro_batches"],
    },
)

"""A trained model as a thing to use and to hand on: the embedder, its saved form, exports."""

from typing import TYPE_CHECKING

from polyanchor._optional import lazy_names, load

if TYPE_CHECKING:
    from polyanchor.deploy.embedder import Embedder as Embedder
    from polyanchor.deploy.embedder import open_embedder as open_embedder
    from polyanchor.deploy.export import Exported as Exported

load("huggingface_hub", "train")  # what the rest imports at its top comes with the same extra
__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {"embedder": ["Embedder", "open_embedder"], "export": ["Exported"]},
)

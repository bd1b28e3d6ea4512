"""Search with a trained embedding: an index on disk or on a Qdrant server, what it finds, how well."""

from typing import TYPE_CHECKING

from polyanchor._optional import lazy_names, load

if TYPE_CHECKING:
    from polyanchor.index.index import Index as Index
    from polyanchor.index.recall import Recall as Recall
    from polyanchor.index.recall import measure_recall as measure_recall
    from polyanchor.index.types import Hit as Hit

load("pydantic", "train")  # what the rest imports at its top comes with the same extra
__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {"index": ["Index"], "recall": ["Recall", "measure_recall"], "types": ["Hit"]},
)

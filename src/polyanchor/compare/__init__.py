"""Comparisons: the same budget, batches and seeds for every loss, and what the numbers then say."""

from typing import TYPE_CHECKING

from polyanchor._optional import lazy_names

if TYPE_CHECKING:
    from polyanchor.compare.run import compare as compare

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {"run": ["compare"]},
)

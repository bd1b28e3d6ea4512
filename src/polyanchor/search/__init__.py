"""Exact nearest neighbours: vectors in, :class:`polyanchor.Neighbours` out."""

from typing import TYPE_CHECKING

from polyanchor._optional import lazy_names

if TYPE_CHECKING:
    from polyanchor.search.exact import search as search
    from polyanchor.search.exact import search_blocks as search_blocks
    from polyanchor.search.exact import search_others as search_others
    from polyanchor.search.exact import search_others_blocks as search_others_blocks

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "exact": ["search", "search_blocks", "search_others", "search_others_blocks"],
    },
)

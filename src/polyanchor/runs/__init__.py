"""A finished run: its folder, opening it, embedding with it, evaluating it. Nothing here imports Lightning."""

from typing import TYPE_CHECKING

from polyanchor._optional import lazy_names

if TYPE_CHECKING:
    from polyanchor.runs.evaluate import evaluate_items as evaluate_items
    from polyanchor.runs.load import embed_run as embed_run
    from polyanchor.runs.load import evaluate_run as evaluate_run

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "evaluate": ["evaluate_items"],
        "load": ["embed_run", "evaluate_run"],
    },
)

"""Statistics over seeds, queries and methods."""

from typing import TYPE_CHECKING

from polyanchor._optional import lazy_names

if TYPE_CHECKING:
    from polyanchor.stats.agreement import discrimination as discrimination
    from polyanchor.stats.agreement import mean_rank_agreement as mean_rank_agreement
    from polyanchor.stats.agreement import pooled_deviation as pooled_deviation
    from polyanchor.stats.agreement import rank_agreement as rank_agreement
    from polyanchor.stats.bootstrap import bootstrap_interval as bootstrap_interval
    from polyanchor.stats.bootstrap import paired_bootstrap as paired_bootstrap
    from polyanchor.stats.bootstrap import resampled_means as resampled_means
    from polyanchor.stats.intervals import Paired as Paired
    from polyanchor.stats.intervals import holm as holm
    from polyanchor.stats.intervals import mean_interval as mean_interval
    from polyanchor.stats.intervals import paired_t as paired_t

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "agreement": ["discrimination", "mean_rank_agreement", "pooled_deviation", "rank_agreement"],
        "bootstrap": ["bootstrap_interval", "paired_bootstrap", "resampled_means"],
        "intervals": ["Paired", "holm", "mean_interval", "paired_t"],
    },
)

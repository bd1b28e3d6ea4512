"""Looks into trained models: the gradients that a loss sends out, and what the proxies stand for."""

from typing import TYPE_CHECKING

from polyanchor._optional import lazy_names

if TYPE_CHECKING:
    from polyanchor.analysis.gradients import SimilarityGradient as SimilarityGradient
    from polyanchor.analysis.gradients import Strength as Strength
    from polyanchor.analysis.gradients import pull_push_curve as pull_push_curve
    from polyanchor.analysis.gradients import response as response
    from polyanchor.analysis.gradients import similarity_gradient as similarity_gradient
    from polyanchor.analysis.gradients import strength as strength
    from polyanchor.analysis.proxies import ProxyStudy as ProxyStudy
    from polyanchor.analysis.proxies import agreement as agreement
    from polyanchor.analysis.proxies import study_proxies as study_proxies

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "gradients": [
            "SimilarityGradient",
            "Strength",
            "pull_push_curve",
            "response",
            "similarity_gradient",
            "strength",
        ],
        "proxies": ["ProxyStudy", "agreement", "study_proxies"],
    },
)

"""Retrieval before training: by the features of the backbone as they are, centred, and reduced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from polyanchor.datasets.items import Items
from polyanchor.functional import unit_rows
from polyanchor.models.embedding import EmbeddingModel
from polyanchor.models.head import pca
from polyanchor.runs.embed import embed
from polyanchor.runs.evaluate import evaluate_embeddings
from polyanchor.types import Embeddings, RetrievalReport

FORMS: Mapping[str, str] = {
    "features": "features",
    "centred": "features less their mean",
    "reduced": "features less their mean, cut by PCA",
}
"""Name of a form -> what it is."""
SAMPLE = 5_000  # training items by which means and principal components are fitted; more change them little


class Features(nn.Module):
    """The backbone of a model alone: inputs -> ``(B, F)`` features; vectors are their own features."""

    def __init__(self, model: EmbeddingModel) -> None:
        super().__init__()
        self.backbone = nn.Identity() if model.backbone is None else model.backbone

    def forward(self, inputs: Tensor) -> Tensor:
        """One batch."""
        features: Tensor = self.backbone(inputs)
        return features


@dataclass(frozen=True)
class FeatureForms:
    """The mean and the principal components of training features.

    Attributes:
        mean: ``(F,)``.
        reduction: of centred features of length 1; None if the embedding has as many columns.

    Example:
        >>> forms = fit_forms(torch.tensor([[1.0, 2.0, 0.0], [3.0, 2.0, 1.0]]), 1)
        >>> {name: tuple(vectors.shape) for name, vectors in forms.of(torch.ones(5, 3)).items()}
        {'features': (5, 3), 'centred': (5, 3), 'reduced': (5, 1)}
    """

    mean: Tensor
    reduction: nn.Linear | None

    def of(self, features: Tensor) -> dict[str, Tensor]:
        """``(N, F)`` features -> form -> ``(N, ...)`` vectors of length 1."""
        centred = unit_rows(features - self.mean)
        forms = {"features": unit_rows(features), "centred": centred}
        if self.reduction is not None:
            forms["reduced"] = unit_rows(self.reduction(centred))
        return forms


def sample_rows(count: int, *, seed: int, limit: int = SAMPLE) -> Tensor:
    """Ascending numbers of at most ``limit`` of ``count`` rows, drawn by ``seed``."""
    if count <= limit:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:limit].sort().values


def fit_forms(features: Tensor, dim: int) -> FeatureForms:
    """Mean and principal components of ``(N, F)`` training features, for embeddings of ``dim`` columns."""
    mean = features.mean(0)
    reduced = dim < features.shape[1]
    return FeatureForms(mean, pca(unit_rows(features - mean), dim) if reduced else None)


def evaluate_before(
    model: EmbeddingModel,
    forms: FeatureForms,
    test: Items,
    gallery: Items | None,
    *,
    k: tuple[int, ...],
    device: torch.device,
    options: Mapping[str, Any],
) -> dict[str, RetrievalReport]:
    """Evaluate each form of the features as an embedding.

    Args:
        model: whose backbone is used.
        forms: fitted to training items.
        test: the queries.
        gallery: see :func:`~polyanchor.runs.evaluate.evaluate_embeddings`.
        k: cut-offs.
        device: of the search.
        options: of :func:`~polyanchor.runs.embed.embed`; with ``ranks``, all call this and rank 0 searches.
    """
    network = Features(model)
    queries, _ = embed(network, test, description="before", **options)
    searched = None if gallery is None else embed(network, gallery, description="before, gallery", **options)[0]

    def evaluate() -> dict[str, RetrievalReport]:
        sides = [(side, forms.of(side.vectors)) for side in (queries, searched) if side is not None]
        names = list(sides[0][1])

        def form(number: int, name: str) -> Embeddings:
            side, vectors = sides[number]
            return replace(side, vectors=vectors[name])

        return {
            name: evaluate_embeddings(form(0, name), form(1, name) if len(sides) > 1 else None, k=k, device=device)
            for name in names
        }

    ranks = options.get("ranks")
    return evaluate() if ranks is None else ranks.run_on_rank0(evaluate)


def before_table(results: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, list[float | None]]]]:
    """Measures of the features before training and of the run itself on the test classes.

    Args:
        results: a run's ``results.json``.

    Returns:
        Names of the measures; name and values of each form, and last of the run. No rows if they were not measured.
    """
    trained = results["test"]["means"]
    deepest = max((name for name in trained if name.startswith("ndcg@")), key=lambda name: int(name[5:]))
    names = [name for name in ("recall@1", deepest, "map@r") if name in trained]
    forms = {FORMS.get(form, form): report["means"] for form, report in results.get("before", {}).items()}
    own = {"this run" if results.get("point", 1) else "this run: the start": trained}
    rows = [(name, [means.get(measure) for measure in names]) for name, means in (forms | own).items()]
    return names, rows if forms else []


def compared_to_before(results: Mapping[str, Any]) -> str:
    """A sentence on the run beside the best of the features before training; empty if these were not measured.

    Example:
        >>> report = lambda value: {"means": {"map@r": value}}
        >>> compared_to_before({"test": report(0.5), "before": {"features": report(0.41), "centred": report(0.43)}})
        'map@r 0.5000 on the test classes, better than before training: 0.4300 (features less their mean)'
    """
    monitor = results.get("config", {}).get("run", {}).get("monitor", "map@r")
    values = {form: report["means"].get(monitor) for form, report in results.get("before", {}).items()}
    known = {form: value for form, value in values.items() if value is not None}
    own = results["test"]["means"].get(monitor)
    if not known or own is None:
        return ""
    best = max(known, key=lambda form: known[form])
    verdict = "better than" if own > known[best] else "NO BETTER than" if own == known[best] else "WORSE than"
    return (
        f"{monitor} {own:.4f} on the test classes, {verdict} before training: {known[best]:.4f} "
        f"({FORMS.get(best, best)})"
    )

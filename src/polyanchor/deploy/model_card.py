"""The model card: what the model is, how it was measured and how to use it, in the form of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from polyanchor.deploy.description import Description
from polyanchor.runs.before import before_table, compared_to_before

_TEMPLATE = Path(__file__).parent / "assets" / "model_card.md.jinja"
_PLACE = "path/to/this-folder"  # or the repository, which is not known before it is pushed


def model_card(description: Description, fingerprint: str, *, place: str = _PLACE) -> ModelCard:
    """The ``README.md`` of a saved embedder.

    Args:
        description: of the model.
        fingerprint: of the model.
        place: the name to load it by.

    Example:
        >>> card = model_card(Description(backbone="none", embedding_dim=2), "0f3a")
        >>> card.data.library_name, card.text.splitlines()[1]
        ('polyanchor', '# An embedding of vectors in 2 dimensions')
    """
    origin = description.origin
    results = {} if origin is None else origin.results or {}
    test = results.get("test", {})
    shared = 0 if origin is None else len(set(origin.train_classes) & set(origin.test_classes))
    return ModelCard.from_template(
        _metadata(description, test),
        template_path=str(_TEMPLATE),
        description=description,
        preprocessing=description.preprocessing,
        origin=origin,
        test=test,
        before=before_table(results) if test else ([], []),
        compared=compared_to_before(results) if test else "",
        shared_classes=shared,
        environment=_environment(results.get("environment", {})),
        place=place,
        fingerprint=fingerprint,
    )


def _metadata(description: Description, test: dict[str, Any]) -> ModelCardData:
    origin, images = description.origin, description.preprocessing is not None
    means = {name: value for name, value in test.get("means", {}).items() if value is not None}
    source = "" if origin is None else origin.test_source or origin.source
    results = [
        EvalResult(
            task_type="image-feature-extraction" if images else "feature-extraction",
            task_name="retrieval",
            dataset_type=source.rpartition(":")[2],
            dataset_name=f"{source}, test classes",
            metric_type=name,
            metric_value=round(value, 4),
        )
        for name, value in means.items()
    ]
    return ModelCardData(
        library_name="polyanchor",
        pipeline_tag="image-feature-extraction" if images else None,
        tags=["deep-metric-learning", "embeddings", *(["image-retrieval", "timm"] * images), "model_hub_mixin"],
        metrics=list(means) or None,
        model_name=origin.run if origin is not None else "embedder",
        eval_results=results or None,
    )


def _environment(environment: dict[str, Any]) -> list[str]:
    commit = [f"commit `{environment['commit']}`"] if "commit" in environment else []
    versions = [f"{name} {environment[name]}" for name in ("polyanchor", "torch", "timm") if name in environment]
    return (
        commit
        + versions
        + [environment[name] for name in ("accelerator", "processor", "machine") if name in environment]
    )

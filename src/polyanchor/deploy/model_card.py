"""The model card: what the model is, how it was measured and how to use it, in the form of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from polyanchor.deploy.description import Description, Origin, Preprocessing

_SHOWN = 20  # class names; a benchmark has thousands
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
    sections = [_head(description), _use(description, place), _preprocessing(description.preprocessing)]
    if description.origin is not None:
        sections += [_measured(description.origin), _training(description.origin)]
    sections.append(_about(fingerprint))
    body = "\n\n".join("\n".join(section) for section in sections)
    return ModelCard(f"---\n{_metadata(description).to_yaml()}\n---\n\n{body}\n")


def _metadata(description: Description) -> ModelCardData:
    origin, images = description.origin, description.preprocessing is not None
    test = _test(origin)
    means = {name: value for name, value in test.get("means", {}).items() if value is not None}
    tags = ["deep-metric-learning", "embeddings", *(["image-retrieval", "timm"] if images else []), "model_hub_mixin"]
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
        tags=tags,
        metrics=list(means) or None,
        model_name=origin.run if origin is not None else "embedder",
        eval_results=results or None,
    )


def _head(description: Description) -> Iterator[str]:
    images, origin = description.preprocessing is not None, description.origin
    yield f"# An embedding of {'images' if images else 'vectors'} in {description.embedding_dim} dimensions"
    yield ""
    network = f"`{description.backbone}`, pooling `{description.pooling}`, a linear head" if images else "A linear head"
    trained = "" if origin is None else f", trained with the loss `{origin.loss.get('name')}` on `{origin.source}`"
    yield f"{network}{trained}. Items of one class lie near each other: the more alike, the higher their cosine."


def _use(description: Description, place: str) -> Iterator[str]:
    images, dim = description.preprocessing is not None, description.embedding_dim
    yield "## Use"
    yield ""
    yield "`pip install 'polyanchor[train]'`, then"
    yield ""
    yield "```python"
    yield "import polyanchor" if images else "import polyanchor, torch"
    yield f'embedder = polyanchor.Embedder.from_pretrained("{place}")'
    inputs = '["a.jpg", "b.jpg"]' if images else "torch.randn(2, FEATURES)"
    yield f"vectors = embedder.embed({inputs})  # (2, {dim}) float32, rows of length 1"
    yield "```"
    yield ""
    yield "`vectors @ vectors.T` are the cosines. Loading reads JSON and safetensors and runs no code from them."


def _preprocessing(preprocessing: Preprocessing | None) -> Iterator[str]:
    yield "## Preprocessing"
    yield ""
    if preprocessing is None:
        yield "None: the input is a batch of vectors, `(B, F)` float32, as the training had them."
        return
    mean, std = list(preprocessing.mean), list(preprocessing.std)
    last = f"Scale to [0, 1], subtract {mean}, divide by {std} (red, green, blue)."
    yield "`embed` does all of it. For other programs:"
    yield ""
    yield from (f"{number}. {step}" for number, step in enumerate([*preprocessing.steps(), last], 1))


def _measured(origin: Origin) -> Iterator[str]:
    test = _test(origin)
    yield "## Measured"
    yield ""
    if not test:
        yield "The run was not measured."
        return
    results, means = origin.results or {}, test["means"]
    yield "| k | recall@k | precision@k | nDCG@k |"
    yield "| ---: | ---: | ---: | ---: |"
    for k in (name.partition("@")[2] for name in means if name.startswith("recall@")):
        yield f"| {k} | {' | '.join(_number(means[f'{name}@{k}']) for name in ('recall', 'precision', 'ndcg'))} |"
    yield ""
    others = ("MAP@R", "map@r"), ("R-precision", "r_precision"), ("MRR", "mrr")
    yield ", ".join(f"{label} {_number(means[name])}" for label, name in others) + "."
    yield ""
    without = f", {test['undefined']} of them without a match to find (left out)" if test["undefined"] else ""
    yield (
        f"{test['queries']} queries{without}, each searched among {test['gallery']} items; the query itself is never "
        "among them."
    )
    yield ""
    yield from (f"- {line}" for line in _circumstances(origin, results, test))


def _circumstances(origin: Origin, results: dict[str, Any], test: dict[str, Any]) -> Iterator[str]:
    if origin.test_classes:
        shared = len(set(origin.train_classes) & set(origin.test_classes)) if not origin.test_source else 0
        seen = f"; {shared} of them trained too" if shared else "; none of them trained"
        yield f"Test classes: {_classes(origin.test_classes)}{'' if origin.test_source else seen}."
    yield f"Data: `{origin.test_source or origin.source}`."
    held = origin.validation_classes
    yield (
        f"Epoch {results.get('epoch')} of {origin.epochs}, {results.get('chosen_by')}"
        + (f" ({held} held out of the training classes)" if held else "")
        + "; the test classes chose nothing."
    )
    environment = results.get("environment", {})
    made = [f"{name} {environment[name]}" for name in ("polyanchor", "torch", "timm") if name in environment]
    commit = [f"commit `{environment['commit']}`"] if "commit" in environment else []
    machine = [environment[name] for name in ("accelerator", "processor", "machine") if name in environment]
    yield f"Seed {origin.seed}, one run; {', '.join(commit + made + machine)}."
    yield from (f"Note: {note}." for note in test["notes"])


def _training(origin: Origin) -> Iterator[str]:
    yield "## Training"
    yield ""
    yield "| | |"
    yield "| --- | --- |"
    yield f"| data | `{origin.source}` |"
    if origin.train_classes:
        yield f"| classes | {_classes(origin.train_classes)} |"
    yield f"| first weights | {origin.initial_weights or 'random'} |"
    yield f"| loss | {', '.join(f'`{key}` {value}' for key, value in origin.loss.items())} |"
    yield f"| epochs, seed | {origin.epochs}, {origin.seed} |"


def _about(fingerprint: str) -> Iterator[str]:
    yield "## About the method"
    yield ""
    yield (
        "polyanchor is an independent implementation of the Multi Proxy Anchor family (Saeki, Kawahara and Aman, "
        "[arXiv 2110.03997](https://arxiv.org/abs/2110.03997)): its formulas are its own reading of the paper's "
        "abstract, and it does not claim to reproduce the paper's tables."
    )
    yield ""
    yield f"Fingerprint of weights and preprocessing: `{fingerprint}`"


def _test(origin: Origin | None) -> dict[str, Any]:
    return (origin.results or {}).get("test", {}) if origin is not None else {}


def _classes(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} ({', '.join(names[:_SHOWN])}{more})"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"

"""What a run was: data, model, loss, and what its numbers can and cannot say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from polyanchor.report.opening import Opened

PAPER = "https://arxiv.org/abs/2110.03997"
_FAMILY = "multi-proxy-anchor"


def facts(opened: Opened) -> dict[str, str]:
    """Term -> description, for the head of the page."""
    config, results = opened.trained.config, opened.results
    parts, searched = opened.trained.parts, opened.gallery
    loss = config.loss.model_dump(exclude={"proxy_sharding", "negative_share"})  # where it was computed, not what
    name = loss.pop("name")
    held = parts.validation
    among = f"{opened.report.gallery:,} items" if searched is None else f"{opened.report.gallery:,} gallery items"
    undefined = opened.report.undefined
    said = {
        "Data": parts.split.name,
        "Queries": f"{opened.report.queries:,} {opened.part} items of {_count(opened.queries.items.classes)}, "
        f"each searched among {among}" + (", itself left out" if searched is None else ""),
        "Classes": seen(opened),
        "Undefined": f"{undefined:,} queries have nothing of their class to find and are left out of the means",
        "Trained on": f"{len(parts.train):,} items of {_count(parts.train.classes)}"
        + ("" if held is None else f"; {_count(held.classes)} held out of training"),
        "Model": f"{config.model.backbone}, {config.model.embedding_dim} dimensions, weights "
        f"{config.model.weights or 'random at the start'}",
        "Loss": f"{name}: " + ", ".join(f"{key} {value}" for key, value in loss.items()),
        "Epoch": f"{results.get('epoch')} of {config.run.epochs}, {results.get('chosen_by')}",
    }
    if not undefined:
        del said["Undefined"]
    return said


def seen(opened: Opened) -> str:
    """Whether the network knew the classes of the queries."""
    classes, trained = opened.queries.items.classes, opened.trained.classes
    known = int(torch.isin(classes, trained).sum())
    if opened.part == "validation":
        return f"held out: the {_count(classes)} did not train, but chose the epoch, so the numbers are flattering"
    if known == 0:
        return f"unseen: none of the {_count(classes)} trained, and none chose the epoch"
    if known == len(classes):
        return f"seen: all {_count(classes)} of the queries trained"
    return f"{known:,} of the {_count(classes)} trained, {len(classes) - known:,} are unseen"


def formulas(loss: str) -> list[str]:
    """Which formulas are whose."""
    family = (
        "This run's loss is of the Multi Proxy Anchor family. Its formulas are polyanchor's own reading of the paper's "
        "abstract, with published Proxy Anchor (Kim et al., CVPR 2020) as the case of one proxy per class; nobody "
        "claims that they reproduce the paper's tables."
        if loss == _FAMILY
        else f"This run's loss, {loss}, is that of pytorch-metric-learning; it is not of the Multi Proxy Anchor family."
    )
    return [
        family,
        "nDCG@k: gains of 1 for the query's class, discount 1/log2(rank + 1), divided by the best possible order of "
        "the whole gallery. The query is left out by its identity. recall@k: any hit among the first k. "
        "MAP@R as Musgrave et al. (2020).",
        "Intervals: percentile bootstrap, 95 %. Over queries: other queries of the same classes, with the same "
        "gallery. Over classes: other classes of the same kind; queries of one class share its difficulty, so this is "
        "the wider and the more honest one. Neither says anything about another training with another seed.",
    ]


def environment(results: Mapping[str, Any]) -> dict[str, str]:
    """Versions and machine of the training, as far as the run wrote them down."""
    found = {str(name): str(value) for name, value in (results.get("environment") or {}).items()}
    if results.get("seconds") is not None:
        found["seconds since the last start"] = f"{results['seconds']:,}"
    return found


def _count(classes: torch.Tensor) -> str:
    return f"{len(classes):,} {'class' if len(classes) == 1 else 'classes'}"

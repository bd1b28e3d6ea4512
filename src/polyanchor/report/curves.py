"""What the epochs were like, as data of figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polyanchor.report.measures import label


def curves(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures that the rows of ``results.json`` allow: loss, measures on held-out classes, the proxies.

    Args:
        results: what ``results.json`` holds; runs of former versions have no rows.

    Returns:
        For each figure ``title``, ``y`` (what its axis says) and ``lines``, each with ``name`` and ``values``, one an
        epoch, None where there is none.

    Example:
        >>> [one["title"] for one in curves({"epochs": [{"loss": 2.0, "proxy_turn": 3.0}]})]
        ['Training loss', 'How far the proxies turned']
    """
    rows: Sequence[Mapping[str, float]] = results.get("epochs") or []
    names = list(dict.fromkeys(name for row in rows for name in row))
    held = [name for name in names if name.startswith("val/")]
    wanted = [
        ("Training loss", "mean over the steps", {"loss": "loss"}),
        ("Held-out training classes", "measure", {name: label(name[4:]) for name in _few(held)}),
        ("How far the proxies turned", "degrees in the epoch", {"proxy_turn": "median angle"}),
        ("Length of the proxies", "length at the end", {"proxy_length": "median length"}),
    ]
    figures = []
    for title, axis, lines in wanted:
        known = {name: words for name, words in lines.items() if any(row.get(name) is not None for row in rows)}
        if title.startswith("Length") and _constant([row.get("proxy_length") for row in rows]):
            continue  # held fixed: a flat line says nothing
        if known:
            drawn = [{"name": words, "values": [row.get(name) for row in rows]} for name, words in known.items()]
            figures.append({"title": title, "y": axis, "lines": drawn})
    return figures


def _few(held: Sequence[str]) -> list[str]:
    """The measures without a cut-off and, of those with one, the smallest for recall and the largest for nDCG."""
    plain = [name for name in held if name.partition("@")[2] in ("", "r")]
    recall = [name for name in held if name.startswith("val/recall@")]
    ndcg = [name for name in held if name.startswith("val/ndcg@")]
    return [*sorted(recall, key=_cutoff)[:1], *sorted(ndcg, key=_cutoff)[-1:], *plain]


def _cutoff(name: str) -> int:
    return int(name.partition("@")[2])


def _constant(values: Sequence[float | None]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and max(known) - min(known) <= 1e-3 * max(known)

"""The items of a finished run with their vectors, and their Parquet file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._io import replacing
from polyanchor._optional import load
from polyanchor._progress import progress
from polyanchor.config.builders import device_of, embed_options
from polyanchor.datasets.items import Items
from polyanchor.runs.embed import embed
from polyanchor.runs.evaluate import evaluate_embeddings
from polyanchor.runs.load import PARTS, Trained, items_by_part, open_trained
from polyanchor.types import Embeddings
from polyanchor.viz.sheets import thumbnails


@dataclass(frozen=True)
class Rows:
    """The items of a split of a run's data, row for row.

    Attributes:
        split: ``"train"``, ``"validation"``, ``"test"`` or ``"gallery"``.
        items: those that could be read.
        embeddings: their vectors.
        ndcg: ``(N,)`` float64, nDCG of each as a query, NaN where undefined; None for a split without queries.
    """

    split: str
    items: Items
    embeddings: Embeddings
    ndcg: Tensor | None


def open_rows(
    run: Path, *, split: str = "test", settings: tuple[str, ...] = ()
) -> tuple[list[Rows], int, tuple[str, ...]]:
    """Embed a part of a finished run's data, or all of it.

    Args:
        run: its folder.
        split: ``"test"``, ``"gallery"``, ``"train"``, ``"validation"`` or ``"all"`` of them.
        settings: changes to its ``data``, ``images``, ``batches`` and ``run`` keys.

    Returns:
        Its parts; the k of the nDCG, the largest of ``run.k``; the names of images that could not be read.

    Raises:
        FileNotFoundError: no run, or one that is not finished.
        ValueError: there is no such part.
    """
    _check.one_of("split", split, PARTS)
    trained = open_trained(run, settings)
    data, k = trained.parts.split, max(trained.config.run.k)
    found, skipped = embed_parts(trained, [name for name in PARTS if split in ("all", name)])
    if not found:
        raise InputError(f"{data.name} has no {split} split in this run")
    test, gallery = found.get("test"), found.get("gallery")
    if test is not None:
        if gallery is None and data.gallery is not None:  # searched, and not asked for
            gallery = embed_parts(trained, ["gallery"])[0]["gallery"]
        searched = None if gallery is None else gallery.embeddings
        report = evaluate_embeddings(test.embeddings, searched, k=[k], device=device_of(trained.config))
        found["test"] = replace(test, ndcg=report.per_query[f"ndcg@{k}"])
    return list(found.values()), k, skipped


def embed_parts(trained: Trained, names: Sequence[str]) -> tuple[dict[str, Rows], tuple[str, ...]]:
    """Embed parts of a run's data, without evaluating them.

    Args:
        trained: the run, opened.
        names: of the parts; those that the run lacks are left out.

    Returns:
        Name -> split, in the order of training, validation, test, gallery; the names of images that could not be read.
    """
    options = embed_options(trained.config, trained.model.statistics)
    model = trained.model.to(device_of(trained.config))
    rows: dict[str, Rows] = {}
    skipped: tuple[str, ...] = ()
    for name, items in items_by_part(trained.parts).items():
        if items is not None and name in names:
            embeddings, bad = embed(model, items, description=name, **options)
            skipped += bad
            rows[name] = Rows(name, items.without(bad), embeddings, None)
    return rows, skipped


_GROUP = 1_000  # rows in memory at once, with their thumbnails


def write_parquet(rows: Sequence[Rows], file: Path, *, k: int) -> None:
    """Write a row for each item; the file is replaced in one step.

    Columns: ``name``, ``label`` (class id), ``class_name``, ``split``, ``ndcg_at_k`` (null where the item is no
    query, or has nothing to find), ``sublabel`` where known, ``vector`` (list of float32), and for images ``image``,
    the struct ``{bytes, path}`` of Hugging Face, with a JPEG of at most 128 pixels.

    Args:
        rows: of a run, see :func:`polyanchor.runs.embed_parts.open_rows`.
        file: where to.
        k: of the nDCG.
    """
    parquet = load("pyarrow.parquet", "train")
    schema = _schema(rows, k)
    total = sum(len(one.items) for one in rows)
    with (
        replacing(file) as unfinished,
        parquet.ParquetWriter(unfinished, schema) as writer,
        progress("writing", total=total, unit="items") as advance,
    ):
        for table in _groups(rows, schema):
            writer.write_table(table)
            advance(table.num_rows)


def _schema(rows: Sequence[Rows], k: int) -> Any:
    arrow = load("pyarrow", "train")
    columns = {
        "name": arrow.string(),
        "label": arrow.int64(),
        "class_name": arrow.string(),
        "split": arrow.string(),
        f"ndcg_at_{k}": arrow.float64(),
    }
    if all(one.embeddings.sublabels is not None for one in rows):
        columns["sublabel"] = arrow.int64()
    columns["vector"] = arrow.list_(arrow.float32())
    features: dict[str, Any] = {name: {"dtype": str(kind), "_type": "Value"} for name, kind in columns.items()}
    features["vector"] = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"}
    for name, kind in columns.items():
        if kind == arrow.float64():
            features[name]["dtype"] = "float64"  # Arrow calls it double
    if not any(one.items.is_vectors for one in rows):
        columns["image"] = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
        features["image"] = {"_type": "Image"}
    said = json.dumps({"info": {"features": features}})
    return arrow.schema(list(columns.items()), metadata={"huggingface": said})


def _groups(rows: Sequence[Rows], schema: Any) -> Iterator[Any]:
    arrow = load("pyarrow", "train")
    ndcg = next(name for name in schema.names if name.startswith("ndcg_at_"))
    for one in rows:
        found, inputs = one.embeddings, one.items.inputs
        for start in range(0, len(one.items), _GROUP):
            here = range(start, min(start + _GROUP, len(one.items)))
            labels = found.labels[here.start : here.stop].tolist()
            names = [one.items.name(row) for row in here]
            values = [None] * len(here) if one.ndcg is None else one.ndcg[here.start : here.stop].tolist()
            columns: dict[str, list[Any]] = {
                "name": names,
                "label": labels,
                "class_name": [found.class_names.get(label, str(label)) for label in labels],
                "split": [one.split] * len(here),
                ndcg: [None if value != value else value for value in values],
                "vector": list(found.vectors[here.start : here.stop].numpy()),
            }
            if "sublabel" in schema.names and found.sublabels is not None:
                columns["sublabel"] = found.sublabels[here.start : here.stop].tolist()
            if "image" in schema.names:
                assert not hasattr(inputs, "dtype")  # the schema has images where no part holds vectors
                small = thumbnails(inputs, here)
                columns["image"] = [{"bytes": cell, "path": name} for cell, name in zip(small, names, strict=True)]
            yield arrow.table(columns, schema=schema)

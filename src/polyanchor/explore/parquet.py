"""A table of items with vectors and thumbnails, as embedding-atlas and Hugging Face's datasets read it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from polyanchor._extras import load
from polyanchor._files import replacing
from polyanchor._progress import progress
from polyanchor.explore.rows import Rows
from polyanchor.explore.thumbnails import thumbnails

_GROUP = 1_000  # rows in memory at once, with their thumbnails


def write_parquet(rows: Sequence[Rows], file: Path, *, k: int) -> None:
    """Write a row for each item; the file is replaced in one step.

    Columns: ``name``, ``label`` (class id), ``class_name``, ``part``, ``ndcg_at_k`` (null where the item is no
    query, or has nothing to find), ``sublabel`` where known, ``vector`` (list of float32), and for images ``image``,
    the struct ``{bytes, path}`` of Hugging Face, with a JPEG of at most 128 pixels.

    Args:
        rows: of a run, see :func:`polyanchor.explore.rows.open_rows`.
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
        "part": arrow.string(),
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
                "part": [one.part] * len(here),
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

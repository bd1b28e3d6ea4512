"""The parts of a finished run's data, embedded; a Parquet table of them for viewers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._io import replacing
from polyanchor._optional import load
from polyanchor._progress import progress
from polyanchor.config.builders import device_of, embed_options, require_fitting
from polyanchor.datasets.items import Items
from polyanchor.runs.embed import embed
from polyanchor.runs.evaluate import evaluate_embeddings
from polyanchor.runs.load import PARTS, Trained, all_of, items_by_part, open_trained, own_split
from polyanchor.types import Embeddings
from polyanchor.viz.sheets import thumbnails

_GROUP = 1_000  # rows in memory at once, with their thumbnails


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
    run: Path, *, data: str = "", split: str = "", settings: tuple[str, ...] = ()
) -> tuple[list[Rows], int, tuple[str, ...]]:
    """Embed a part of a finished run's data, or all of it, or other data, and measure each query.

    Args:
        run: its folder.
        data: another data source, all of whose items are searched among themselves; empty: the run's own.
        split: ``"test"`` (also if empty), ``"gallery"``, ``"train"``, ``"validation"`` or ``"all"`` of them; not
            beside ``data``.
        settings: changes to its ``data``, ``images``, ``batches`` and ``run`` keys.

    Returns:
        Its parts; the k of the nDCG, the largest of ``run.k``; the names of images that could not be read.

    Raises:
        FileNotFoundError: no run, or one that is not finished.
        ValueError: there is no such part.
    """
    split = own_split(split, data)
    _check.one_of("split", split, PARTS)
    trained = open_trained(run, settings, reduced=True)
    source, k = trained.parts.split, max(trained.config.run.k)
    if data:
        items = all_of(data, trained.config)
        require_fitting(trained.model, data, items, of=str(run))
        test, skipped = _embed(trained, "test", items)
        parts, gallery = {"test": test}, None
    else:
        parts, skipped = embed_parts(trained, [name for name in PARTS if split in ("all", name)])
        gallery = parts.get("gallery")
        if "test" in parts and gallery is None and source.gallery is not None:  # searched, though not to be returned
            gallery = _embed(trained, "gallery", source.gallery)[0]
    if not parts:
        raise InputError(f"{source.name} has no {split} split in this run")
    if "test" in parts:
        test = parts["test"]
        searched = None if gallery is None else gallery.embeddings
        report = evaluate_embeddings(test.embeddings, searched, k=[k], device=device_of(trained.config))
        parts["test"] = replace(test, ndcg=report.per_query[f"ndcg@{k}"])
    return list(parts.values()), k, skipped


def embed_parts(trained: Trained, names: Sequence[str]) -> tuple[dict[str, Rows], tuple[str, ...]]:
    """Embed parts of a run's data, without evaluating them.

    Args:
        trained: the run, opened.
        names: of the parts; those that the run lacks are left out.

    Returns:
        Name -> rows, in the order of training, validation, test, gallery; the names of images that could not be read.
    """
    rows: dict[str, Rows] = {}
    skipped: tuple[str, ...] = ()
    for name, items in items_by_part(trained.parts).items():
        if items is not None and name in names:
            rows[name], bad = _embed(trained, name, items)
            skipped += bad
    return rows, skipped


def _embed(trained: Trained, name: str, items: Items) -> tuple[Rows, tuple[str, ...]]:
    options = embed_options(trained.config, trained.model.statistics)
    embeddings, skipped = embed(trained.model.to(device_of(trained.config)), items, description=name, **options)
    return Rows(name, items.without(skipped), embeddings, None), skipped


def write_parquet(rows: Sequence[Rows], file: Path, *, k: int) -> None:
    """Write a table with a row for each item, which embedding-atlas and Hugging Face's ``datasets`` open.

    Columns: ``name``, ``label`` (class id), ``class_name``, ``split``, ``ndcg_at_k`` (null where the item is no
    query, or has nothing to find), ``sublabel`` where known, ``vector`` (list of float32), and for images ``image``,
    the struct ``{bytes, path}`` of Hugging Face, with a JPEG of at most 128 pixels.

    Args:
        rows: of a run, see :func:`open_rows`.
        file: replaced in one step.
        k: of the nDCG.
    """
    parquet = load("pyarrow.parquet", "train")
    schema = _schema(rows, k)
    file.parent.mkdir(parents=True, exist_ok=True)
    with (
        replacing(file) as unfinished,
        parquet.ParquetWriter(unfinished, schema) as writer,
        progress("writing", total=sum(len(part.items) for part in rows), unit="items") as advance,
    ):
        for part in rows:
            for start in range(0, len(part.items), _GROUP):
                table = _table(part, slice(start, min(start + _GROUP, len(part.items))), schema)
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
    if all(part.embeddings.sublabels is not None for part in rows):
        columns["sublabel"] = arrow.int64()
    features: dict[str, Any] = {name: {"dtype": str(kind), "_type": "Value"} for name, kind in columns.items()}
    features[f"ndcg_at_{k}"]["dtype"] = "float64"  # Arrow calls it double
    columns["vector"] = arrow.list_(arrow.float32())
    features["vector"] = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"}
    if not any(part.items.is_vectors for part in rows):
        columns["image"] = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
        features["image"] = {"_type": "Image"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return arrow.schema(list(columns.items()), metadata=metadata)


def _table(part: Rows, rows: slice, schema: Any) -> Any:
    embeddings, inputs, numbers = part.embeddings, part.items.inputs, range(rows.start, rows.stop)
    labels, names = embeddings.labels[rows].tolist(), [part.items.name(row) for row in numbers]
    ndcg_column = next(name for name in schema.names if name.startswith("ndcg_at_"))
    ndcg = [None] * len(numbers) if part.ndcg is None else part.ndcg[rows].tolist()
    columns: dict[str, list[Any]] = {
        "name": names,
        "label": labels,
        "class_name": [embeddings.class_names.get(label, str(label)) for label in labels],
        "split": [part.split] * len(numbers),
        ndcg_column: [None if value != value else value for value in ndcg],
        "vector": list(embeddings.vectors[rows].numpy()),
    }
    if "sublabel" in schema.names and embeddings.sublabels is not None:
        columns["sublabel"] = embeddings.sublabels[rows].tolist()
    if "image" in schema.names:
        assert not isinstance(inputs, Tensor)  # the schema has images where no part holds vectors
        jpegs = thumbnails(inputs, numbers)
        columns["image"] = [{"bytes": jpeg, "path": name} for jpeg, name in zip(jpegs, names, strict=True)]
    return load("pyarrow", "train").table(columns, schema=schema)

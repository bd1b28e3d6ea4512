"""CIFAR-100 in the Parquet layout of Hugging Face, with its fine or its coarse labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from polyanchor import _check
from polyanchor._io import reading
from polyanchor.datasets.formats.parquet import IMAGE_COLUMNS, items_of, joined, read_tables
from polyanchor.datasets.splits import OFFICIAL, SourceItems

LABELS = ("fine", "coarse")


def read(root: Path, *, labels: str, allow_partial: bool) -> SourceItems:
    """List CIFAR-100; the official training images train, the official test images are searched.

    All classes are in both splits, so this measures a closed set, not zero-shot retrieval.

    Args:
        root: folder that holds ``train*.parquet`` and ``test*.parquet``, or the folder ``cifar100`` that
            does.
        labels: ``"fine"``, 100 classes, or ``"coarse"``, 20 classes of 5 fine classes each; these come as the items'
            ``sublabels``.
        allow_partial: accept an incomplete copy.
    """
    _check.one_of("labels", labels, LABELS)
    folders = (root / "cifar100", root / "cifar100" / "data", root, root / "data")
    folder = next((p for p in folders if any(p.glob("train*.parquet")) and any(p.glob("test*.parquet"))), None)
    if folder is None:
        raise FileNotFoundError(
            f"cifar100 not found: looked for train*.parquet and test*.parquet in {root / 'cifar100'} and {root}; "
            "give the folder that holds them with --root (root=...)"
        )
    files = [sorted(folder.glob(f"{part}*.parquet")) for part in ("train", "test")]
    with reading("cifar100"):
        columns = ("fine_label", "label") if labels == "fine" else ("coarse_label",)
        required = {"an image column": IMAGE_COLUMNS, f"a column of {labels} labels": columns}
        tables = read_tables(files[0] + files[1], required, ("fine_label",) if labels == "coarse" else ())
        n_train = sum(table.num_rows for table in tables[: len(files[0])])
        table = joined(tables)
        image, label, *fine = table.column_names
        items = items_of(table, image, label, name="cifar100")
        if fine:
            items = replace(items, sublabels=torch.tensor(table[fine[0]].to_pylist(), dtype=torch.int64))
    parts = (torch.arange(table.num_rows) >= n_train).long()
    listing = SourceItems("cifar100", items, parts)
    specs = OFFICIAL["cifar100" if labels == "fine" else "cifar100-coarse"]
    return listing.verified(tuple(specs.values()), allow_partial=allow_partial)

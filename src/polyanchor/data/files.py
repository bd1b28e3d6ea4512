"""Image files that a list names: where they are, and which of them are missing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from polyanchor._errors import InputError
from polyanchor.data.images import ImageFiles
from polyanchor.data.items import Items
from polyanchor.data.listing import Listing
from polyanchor.data.reading import reading


def of_files(
    name: str,
    root: Path,
    paths: Sequence[str],
    labels: Sequence[int],
    *,
    parts: Sequence[int] | None,
    class_names: Mapping[int, str],
    allow_partial: bool,
) -> Listing:
    """List image files; those missing are left out if ``allow_partial``, else they are an error."""
    missing = missing_rows(root, paths)
    if missing and (not allow_partial or len(missing) == len(paths)):
        raise InputError(
            f"{name}: {len(missing):,} of {len(paths):,} listed images are missing, the first is "
            f"{paths[missing[0]]} "
            f"under {root}; complete the copy, or use what is there with --allow-partial (allow_partial=True)"
        )
    with reading(name):
        items = Items(ImageFiles(root, paths), torch.tensor(labels, dtype=torch.int64), class_names)
    listing = Listing(name, items, None if parts is None else torch.tensor(parts, dtype=torch.int64))
    if not missing:
        return listing
    there = torch.ones(len(paths), dtype=torch.bool)
    there[missing] = False
    note = f"{len(missing):,} of {len(paths):,} listed images were missing and left out"
    kept = None if listing.parts is None else listing.parts[there]
    return Listing(name, items.subset(there), kept, (note,), len(missing))


def missing_rows(root: Path, paths: Sequence[str]) -> list[int]:
    """Rows whose file is not there; one look per folder, as one per file takes seconds on a network disk."""
    seen: dict[str, set[str]] = {}
    missing = []
    for row, path in enumerate(paths):
        folder, _, file = path.rpartition("/")
        if path.startswith("/"):
            folder = folder or "/"
        if folder not in seen:
            place = root / folder
            seen[folder] = {entry.name for entry in os.scandir(place)} if place.is_dir() else set()
        if file not in seen[folder]:
            missing.append(row)
    return missing


def locate(root: Path, folders: Sequence[str], marker: str, *, what: str) -> Path:
    """The folder that holds ``marker``: ``root`` itself or one of ``folders`` in it.

    Raises:
        FileNotFoundError: none does; the message names what was looked for and where.
    """
    for place in (*(root / folder for folder in folders), root):
        if (place / marker).is_file():
            return place
    looked = ", ".join(str(place / marker) for place in (root / folders[0], root))
    raise FileNotFoundError(
        f"{what} not found: looked for {looked}; give the folder that holds it with --root (root=...)"
    )

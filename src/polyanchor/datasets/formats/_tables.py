"""Shared by the formats: label and split columns, lists of image files, the folder of a data set."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from polyanchor._errors import InputError
from polyanchor._io import reading
from polyanchor.datasets.images import ImageFiles
from polyanchor.datasets.items import Items
from polyanchor.datasets.splits import OFFICIAL, SourceItems

# Name of a split in a column or a folder, casefolded -> its number in `SourceItems.parts`.
PARTS: Mapping[str, int] = {"train": 0, "test": 1, "query": 1, "gallery": 2, "val": 3, "valid": 3, "validation": 3}

_VAL_IS_MEASURED = "its split has no test part: {} is what the measures are taken on, and it chooses nothing"

_DIGITS = re.compile(r"-?[0-9]{1,19}")


def encode_labels(values: Sequence[object]) -> tuple[list[int], dict[int, str]]:
    """Class ids and names of a label column.

    A column of integers, or of texts that are all integers in plain form, holds ids already, negative ones
    included: :class:`~polyanchor.datasets.items.Items` refuses those, as they mostly mark items without a class.
    Other columns, and those with a number too large for int64, hold names, which are numbered from 0 in sorted order
    (by code point, independent of the locale).

    Raises:
        ValueError: a value is neither an integer nor a text.

    Example:
        >>> encode_labels(["dog", "cat", "dog"])
        ([1, 0, 1], {0: 'cat', 1: 'dog'})
        >>> encode_labels(["12", "7"])
        ([12, 7], {})
    """
    for value in values:
        if not isinstance(value, int | str):
            raise InputError(
                f"labels must be integers or texts, got {type(value).__name__} {value!r}; "
                "convert the column (class numbers with a fraction often come from an integer column with gaps)"
            )
    texts = [str(value) for value in values]
    if all(map(_is_id, texts)):
        return [int(text) for text in texts], {}
    names = sorted(set(texts))
    ids = {name: number for number, name in enumerate(names)}
    return [ids[text] for text in texts], dict(enumerate(names))


def _is_id(text: str) -> bool:
    # "007" and "7" are two names; as numbers they would be one class
    return bool(_DIGITS.fullmatch(text)) and str(int(text)) == text and -(2**63) <= int(text) < 2**63


def part_numbers(values: Sequence[object], *, what: str) -> tuple[list[int], tuple[str, ...]]:
    """Part numbers of a split column, whose names may be in any case, and notes of :func:`one_word_a_part`.

    Raises:
        InputError: an unknown name, or two names for one part.

    Example:
        >>> part_numbers(["train", "Test", "val"], what="list.csv")
        ([0, 1, 3], ())
    """
    words = [str(value).strip() for value in values]
    unknown = sorted({word for word in words if word.casefold() not in PARTS})
    if unknown:
        raise InputError(
            f"{what}: the split column may hold {', '.join(PARTS)}; got {', '.join(map(repr, unknown[:3]))}"
        )
    numbers, notes = one_word_a_part(sorted({word.casefold() for word in words}), what=what)
    return [numbers[word.casefold()] for word in words], notes


def one_word_a_part(words: Sequence[str], *, what: str) -> tuple[dict[str, int], tuple[str, ...]]:
    """Casefolded name -> part number, for the names of :data:`PARTS` that a source uses; and notes.

    Where a source has ``train`` and ``val`` alone, ``val`` is the test part, which is noted: a part that is measured
    must not choose the epoch as well.

    Raises:
        InputError: two of the names mean one part.
    """
    numbers: dict[str, int] = {}
    for word in words:
        number = PARTS[word.casefold()]
        other = next((name for name, taken in numbers.items() if taken == number), None)
        if other is not None:
            raise InputError(f"{what}: its split has both {other} and {word}, which are one part; keep one of them")
        numbers[word.casefold()] = number
    if set(numbers.values()) == {PARTS["train"], PARTS["val"]}:
        measured = next(word for word in words if PARTS[word.casefold()] == PARTS["val"])
        return numbers | {measured.casefold(): PARTS["test"]}, (_VAL_IS_MEASURED.format(measured),)
    return numbers, ()


def encodable(paths: Sequence[str], *, what: str) -> None:
    """Require names in UTF-8, as the files and terminals that they are written to do.

    Raises:
        InputError: a name is not UTF-8; the message shows its bytes in hexadecimal.
    """
    for path in paths:
        if not path.isascii() and path.encode("utf-8", "replace").decode() != path:
            octets = [f"\\x{ord(sign) - 0xDC00:02x}" if "\udc80" <= sign <= "\udcff" else sign for sign in path]
            shown = "".join(octets).encode("utf-8", "backslashreplace").decode()
            raise InputError(f"{what}: the name {shown} is not UTF-8; rename it (convmv renames whole trees)")


def of_files(
    name: str,
    root: Path,
    paths: Sequence[str],
    labels: Sequence[int],
    *,
    parts: Sequence[int] | None,
    class_names: Mapping[int, str],
    allow_partial: bool,
) -> SourceItems:
    """List image files; those missing are left out if ``allow_partial``, else they are an error."""
    missing = missing_rows(root, paths)
    if missing and (not allow_partial or len(missing) == len(paths)):
        raise InputError(
            f"{name}: {len(missing):,} of {len(paths):,} listed images are missing, the first is {paths[missing[0]]} "
            f"under {root}; complete the copy, or use what is there with --allow-partial (allow_partial=True)"
        )
    with reading(name):
        items = Items(ImageFiles(root, paths), torch.tensor(labels, dtype=torch.int64), class_names)
    listing = SourceItems(name, items, None if parts is None else torch.tensor(parts, dtype=torch.int64))
    if not missing:
        return listing
    present = torch.ones(len(paths), dtype=torch.bool)
    present[missing] = False
    note = f"{len(missing):,} of {len(paths):,} listed images were missing and left out"
    kept = None if listing.parts is None else listing.parts[present]
    return SourceItems(name, items.subset(present), kept, (note,), len(missing))


def official(
    name: str,
    root: Path,
    paths: Sequence[str],
    labels: Sequence[int],
    *,
    parts: Sequence[int],
    class_names: Mapping[int, str] | None = None,
    allow_partial: bool,
) -> SourceItems:
    """:func:`of_files` for a benchmark, with the counts of its official splits verified."""
    listing = of_files(
        name, root, paths, labels, parts=parts, class_names=class_names or {}, allow_partial=allow_partial
    )
    return listing.verified(tuple(OFFICIAL[name].values()), allow_partial=allow_partial)


def missing_rows(root: Path, paths: Sequence[str]) -> list[int]:
    """Rows whose file is missing; each folder is listed once, as one look per file takes seconds on a network disk."""
    files: dict[str, set[str]] = {}
    missing = []
    for row, path in enumerate(paths):
        folder, _, file = path.rpartition("/")
        if path.startswith("/"):
            folder = folder or "/"
        if folder not in files:
            path_of_folder = root / folder
            files[folder] = {entry.name for entry in os.scandir(path_of_folder)} if path_of_folder.is_dir() else set()
        if file not in files[folder]:
            missing.append(row)
    return missing


def locate(root: Path, folders: Sequence[str], marker: str, *, what: str) -> Path:
    """The folder that holds the file ``marker``: ``root`` itself or one of ``folders`` in it.

    Raises:
        FileNotFoundError: there is none; the message names what was looked for and where.
    """
    for folder in (*(root / name for name in folders), root):
        if (folder / marker).is_file():
            return folder
    looked = ", ".join(str(folder / marker) for folder in (root / folders[0], root))
    raise FileNotFoundError(
        f"{what} not found: looked for {looked}; give the folder that holds it with --root (root=...)"
    )

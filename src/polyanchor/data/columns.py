"""What a label column and a split column say: class ids, class names and the number of a part."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from polyanchor._errors import InputError

# What a split column or a folder may be called -> the part's number in `Listing.parts`.
PARTS: Mapping[str, int] = {"train": 0, "test": 1, "query": 1, "gallery": 2, "val": 3, "valid": 3, "validation": 3}

_DIGITS = re.compile(r"-?[0-9]{1,19}")


def numbered(values: Sequence[object]) -> tuple[list[int], dict[int, str]]:
    """Class ids and names of a label column.

    A column of integers, or of texts that are all integers in plain form, holds ids already, negative ones
    included: :class:`~polyanchor.data.items.Items` refuses those, as they mostly mark items without a class.
    Other columns hold names, also where a number is too large for int64; names are numbered from 0 in their
    sorted order (by code point, whatever the language of the machine).

    Raises:
        ValueError: a value is neither an integer nor a text.

    Example:
        >>> numbered(["dog", "cat", "dog"])
        ([1, 0, 1], {0: 'cat', 1: 'dog'})
        >>> numbered(["12", "7"])
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


def part_numbers(values: Sequence[object], *, what: str) -> list[int]:
    """Numbers of the parts that a split column names."""
    unknown = sorted({str(value) for value in values if str(value) not in PARTS})
    if unknown:
        raise InputError(
            f"{what}: the split column may hold {', '.join(PARTS)}; got {', '.join(map(repr, unknown[:3]))}"
        )
    return [PARTS[str(value)] for value in values]

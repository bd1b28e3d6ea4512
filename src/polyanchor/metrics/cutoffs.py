"""The cut-offs k of recall@k, precision@k and nDCG@k, as a user may give them."""

from __future__ import annotations

from collections.abc import Sequence

from polyanchor import _check
from polyanchor._errors import InputError


def cutoffs(k: int | Sequence[int], *, largest: int | None = None) -> tuple[int, ...]:
    """One or several cut-offs as a tuple, duplicates removed, in the order given.

    Args:
        k: an int or several, each at least 1.
        largest: number of items that a query is searched in; None to leave it open.

    Raises:
        TypeError: a cut-off is not an int.
        ValueError: there is none, or one is below 1 or above ``largest``.

    Example:
        >>> cutoffs([8, 1, 8])
        (8, 1)
    """
    values = [k] if isinstance(k, int | str) else list(k) if isinstance(k, Sequence) else [k]
    if not values:
        raise InputError("k must hold at least one cut-off, got none; for example k=(1, 2, 4, 8)")
    values = [_check.count("k", value) for value in values]
    for value in values:
        if largest is not None and value > largest:
            raise InputError(
                f"k must be at most {largest}, the number of items that a query is searched in, got {value}; "
                f"leave out the cut-offs above {largest}"
            )
    return tuple(dict.fromkeys(values))

"""Argument checks and their wording: what was expected, what came, what to do.

Checks of shape and dtype cost nothing. Checks of values (label range, NaN) read the tensor, which on an
accelerator would stop the step until the device has caught up; they are made here only for CPU tensors. For
the rest see :mod:`polyanchor.losses.multi_proxy_anchor`.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

import torch
from torch import Tensor
from torch._C import _functorch

from polyanchor._errors import InputError, InputTypeError

_NO_INTEGER = "bool", "float", "complex", "bfloat"


def one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Require ``value`` to be one of ``known``."""
    if value not in known:
        raise InputError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}{nearest(value, known)}")


def nearest(value: object, known: Sequence[str]) -> str:
    """``"; did you mean 'x'?"`` for the known name most like ``value``, or an empty string."""
    close = get_close_matches(str(value), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def positive(name: str, value: float) -> None:
    """Require a number above 0 (NaN and infinity are not)."""
    if not 0 < value < float("inf"):
        raise InputError(f"{name} must be a finite number above 0, got {value!r}")


def finite_number(name: str, value: float) -> None:
    """Require a number that is neither NaN nor infinite."""
    if not float("-inf") < value < float("inf"):
        raise InputError(f"{name} must be a finite number, got {value!r}")


def vectors(name: str, value: Tensor, *, rows: str = "B") -> None:
    """Require a floating matrix with at least one row and one column."""
    if not isinstance(value, Tensor):
        raise InputTypeError(f"{name} must be a torch tensor of shape ({rows}, D), got {type(value).__name__}")
    if value.ndim != 2 or 0 in value.shape:
        raise InputError(f"{name} must have shape ({rows}, D) with at least one row, got {tuple(value.shape)}")
    if not value.is_floating_point():
        raise InputTypeError(f"{name} must be floating point, got {value.dtype}; call .float() on it")


def readable(*values: Tensor) -> bool:
    """Whether looking at the values costs no wait and has one answer: they are on a CPU, and not batched by a vmap."""
    return all(value.device.type == "cpu" for value in values) and (
        _functorch.maybe_current_level() is None or not any(map(_batched, values))
    )


def capturing() -> bool:
    """Whether a CUDA graph is being captured: a look at anything on the device would break that off."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()  # without a driver, an error


def _batched(value: Tensor) -> bool:
    while not _functorch.is_batchedtensor(value):  # a vmap may be within a grad
        if not _functorch.is_functorch_wrapped_tensor(value):
            return False
        value = _functorch.get_unwrapped(value)
    return True


class NotFiniteError(InputError):
    """A value is NaN or infinite: in a training, the rates are too high rather than the input wrong."""


def finite(name: str, value: Tensor) -> None:
    """Require a matrix without NaN or infinity; reads every value."""
    if value.detach().sum().isfinite():
        return  # one pass instead of five; a sum that overflows decides nothing
    bad = ~value.isfinite().all(dim=1)
    if bad.any():
        raise NotFiniteError(
            f"{name} must be finite, got NaN or infinity in {int(bad.sum())} of {len(value)} rows, first in row "
            f"{int(bad.nonzero()[0, 0])}; look at the network's output and the learning rate"
        )


def integer_labels(name: str, labels: Tensor, rows: int) -> Tensor:
    """Require one integer label per row, of any integer dtype; returned as int64."""
    if not isinstance(labels, Tensor):
        raise InputTypeError(f"{name} must be a torch tensor of integers, got {type(labels).__name__}")
    if str(labels.dtype).removeprefix("torch.").startswith(_NO_INTEGER):
        raise InputTypeError(f"{name} must have an integer dtype, got {labels.dtype}; call .long() on it")
    if labels.shape != (rows,):
        raise InputError(f"{name} must have shape ({rows},), one per row, got {tuple(labels.shape)}")
    return labels.long()


_NUMBER_FROM_0 = (
    "Number the training classes from 0 (torch.unique(labels, return_inverse=True)[1] does), or raise num_classes"
)


def class_range(labels: Tensor, classes: int, *, advice: str = _NUMBER_FROM_0) -> None:
    """Require labels in ``[0, classes)``; reads every value."""
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0 or high >= classes:
        raise InputError(class_range_message(low, high, classes, advice=advice))


def class_range_message(low: int, high: int, classes: int, *, advice: str = _NUMBER_FROM_0) -> str:
    """What to say about labels from ``low`` to ``high``."""
    return f"labels must be class numbers in [0, {classes}), got numbers from {low} to {high}. {advice}"


def count(name: str, value: int) -> None:
    """Require an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputTypeError(f"{name} must be an integer, got {type(value).__name__} {value!r}")
    if value < 1:
        raise InputError(f"{name} must be at least 1, got {value}")


def at_least_0(name: str, value: int) -> None:
    """Require an integer of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"{name} must be an integer of 0 or more, got {value!r}")


def counts(name: str, value: Tensor, rows: int | None = None) -> Tensor:
    """Require one count per query, 0 or more, of any integer dtype; returned as int64. Reads every value."""
    if rows is None:
        rows = value.numel() if isinstance(value, Tensor) else 0
    numbers = integer_labels(name, value, rows)
    if (numbers < 0).any():
        raise InputError(f"{name} must be 0 or more, got {int(numbers.min())}; count it over the whole gallery")
    return numbers


def one_device(first_name: str, first: Tensor, second_name: str, second: Tensor) -> None:
    """Require two tensors on the same device."""
    if first.device != second.device:
        raise InputError(
            f"{first_name} and {second_name} must be on one device, got {first.device} and {second.device}; "
            "move one with .to(...)"
        )


def loss_inputs(embeddings: Tensor, proxies: Tensor, labels: Tensor) -> Tensor:
    """Require ``(B, D)``, ``(C, K, D)`` and ``(B,)`` that fit together; the labels come back as int64."""
    vectors("embeddings", embeddings)
    if not isinstance(proxies, Tensor):
        raise InputTypeError(f"proxies must be a torch tensor of shape (C, K, D), got {type(proxies).__name__}")
    if proxies.ndim != 3 or 0 in proxies.shape:
        raise InputError(
            f"proxies must have shape (C, K, D), got {tuple(proxies.shape)}; one proxy per class is (C, 1, D)"
        )
    if not proxies.is_floating_point():
        raise InputTypeError(f"proxies must be floating point, got {proxies.dtype}")
    if embeddings.shape[1] != proxies.shape[2]:
        raise InputError(
            f"embeddings must have as many columns as the proxies, {proxies.shape[2]}, got {embeddings.shape[1]}"
        )
    labels = integer_labels("labels", labels, len(embeddings))
    for name, tensor in ("proxies", proxies), ("labels", labels):
        if tensor.device != embeddings.device:
            raise InputError(
                f"{name} must be on the device of the embeddings, {embeddings.device}, got {tensor.device}; "
                "move both with .to(device)"
            )
    return labels

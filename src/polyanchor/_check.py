"""Argument checks, whose messages say what was expected, what came and what to do.

Checks of shape and dtype are free. Checks of values (label range, NaN) read the tensor, which would stall an
accelerator, so they are made for CPU tensors only; see :mod:`polyanchor.losses.async_checks` for the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from numbers import Real
from operator import index
from typing import SupportsIndex

import torch
from torch import Tensor
from torch._C import _functorch

from polyanchor._errors import InputError, InputTypeError
from polyanchor._errors import nearest as nearest

_NO_INTEGER = "bool", "float", "complex", "bfloat"


def one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """Require ``value`` to be one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(map(repr, choices))
        raise InputError(f"{name} must be one of {listed}, got {value!r}{nearest(value, choices)}")


def number(name: str, value: object) -> float:
    """Require a real number of Python or numpy; returned as a float, infinite if too large for one."""
    if isinstance(value, bool) or not isinstance(value, Real):
        got = (
            f"of shape {tuple(value.shape)}; call .item() on one element" if isinstance(value, Tensor) else repr(value)
        )
        raise InputTypeError(f"{name} must be a number, got {type(value).__name__} {got:.60}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def positive(name: str, value: float) -> float:
    """Require a number above 0 (NaN and infinity are not)."""
    checked = number(name, value)
    if not 0 < checked < math.inf:
        raise InputError(f"{name} must be a finite number above 0, got {value!r}")
    return checked


def finite_number(name: str, value: float) -> float:
    """Require a number that is neither NaN nor infinite."""
    checked = number(name, value)
    if not math.isfinite(checked):
        raise InputError(f"{name} must be a finite number, got {value!r}")
    return checked


def numbers(name: str, values: object) -> list[float]:
    """Require a sequence, tensor or array of numbers, see :func:`number`."""
    listed = values if isinstance(values, Sequence) else getattr(values, "tolist", lambda: None)()
    if isinstance(values, str) or not isinstance(listed, Sequence):
        raise InputTypeError(f"{name} must be a sequence of numbers, got {type(values).__name__} {values!r:.60}")
    return [number(f"{name}[{row}]", value) for row, value in enumerate(listed)]


def share(name: str, value: float) -> float:
    """Require a number above 0 and below 1."""
    checked = number(name, value)
    if not 0 < checked < 1:
        raise InputError(f"{name} must lie between 0 and 1, both excluded, got {value!r}")
    return checked


def dense(name: str, value: Tensor, of: str) -> None:
    """Require a strided torch tensor with memory: not sparse, nested, quantized or on the meta device."""
    if not isinstance(value, Tensor):
        raise InputTypeError(
            f"{name} must be a torch tensor of {of}, got {type(value).__name__}; use torch.as_tensor(...)"
        )
    if value.is_nested or value.layout != torch.strided:
        form = "a nested tensor; call .to_padded_tensor(...) on it" if value.is_nested else value.layout
        raise InputTypeError(f"{name} must be a dense tensor, got {form}; call .to_dense() on it")
    if value.is_quantized:
        raise InputTypeError(f"{name} must not be quantized, got {value.dtype}; call .dequantize() on it")
    if value.is_meta:
        raise InputError(
            f"{name} must hold numbers, got a tensor on the meta device; give the module memory with "
            ".to_empty(device=...) and load or draw its parameters"
        )


def real(name: str, value: Tensor, shape: str) -> None:
    """Require a dense tensor of any real dtype."""
    dense(name, value, f"shape {shape}")
    if value.is_complex():
        raise InputTypeError(f"{name} must be a real tensor of shape {shape}, got {value.dtype}; take .abs() or .real")


def floating(name: str, value: Tensor, shape: str) -> None:
    """Require a dense floating tensor of 16 bits or more, as torch cannot compute with less."""
    dense(name, value, f"shape {shape}")
    if not value.is_floating_point() or value.dtype.itemsize < 2:
        raise InputTypeError(f"{name} must be floating point, got {value.dtype}; call .float() on it")


def vectors(name: str, value: Tensor, *, rows: str = "B") -> None:
    """Require a floating matrix with at least one row and one column."""
    floating(name, value, f"({rows}, D)")
    if value.ndim != 2 or 0 in value.shape:
        raise InputError(f"{name} must have shape ({rows}, D) with at least one row, got {tuple(value.shape)}")


def centres(proxies: Tensor) -> None:
    """Require proxies ``(C, K, D)``."""
    floating("proxies", proxies, "(C, K, D)")
    if proxies.ndim != 3 or 0 in proxies.shape:
        raise InputError(
            f"proxies must have shape (C, K, D), got {tuple(proxies.shape)}; one proxy per class is (C, 1, D)"
        )


def readable(*values: Tensor) -> bool:
    """Whether values can be read without a wait: they are on a CPU, and not batched by a vmap."""
    return all(value.device.type == "cpu" for value in values) and (
        _functorch.maybe_current_level() is None or not any(map(_batched, values))
    )


def capturing() -> bool:
    """Whether a CUDA graph is being captured, which any read from the device would abort."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()  # without a driver, an error


def _batched(value: Tensor) -> bool:
    while not _functorch.is_batchedtensor(value):  # a vmap may be within a grad
        if not _functorch.is_functorch_wrapped_tensor(value):
            return False
        value = _functorch.get_unwrapped(value)
    return True


class NotFiniteError(InputError):
    """A value is NaN or infinite; in training the learning rate is too high rather than the input wrong."""


def finite(name: str, value: Tensor) -> None:
    """Require a tensor without NaN or infinity; reads every value."""
    if value.detach().sum().isfinite():
        return  # one pass instead of five; where the sum overflows, the rest decides
    bad = ~value.isfinite().flatten(1).all(dim=1)
    if bad.any():
        raise NotFiniteError(
            f"{name} must be finite, got NaN or infinity in {int(bad.sum())} of {len(value)} rows, first in row "
            f"{int(bad.nonzero()[0, 0])}; look at the network's output and the learning rate"
        )


LOST = "proxies must be finite, got a loss that is NaN or infinite from finite embeddings; look at the learning rate"


def finite_proxies(proxies: Tensor, loss: Tensor) -> None:
    """Require finite proxies; they are read only where the loss is not finite, as reading all of them is expensive."""
    if torch.compiler.is_compiling():
        return  # it would break the graph, which a traced transform of torch.func does not allow
    if readable(proxies, loss) and not loss.detach().isfinite():
        finite("proxies", proxies.detach())


def integer_labels(name: str, labels: Tensor, rows: int) -> Tensor:
    """Require one integer label per row, of any integer dtype; returned as int64."""
    dense(name, labels, "integers")
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
    """The message about labels from ``low`` to ``high``."""
    return f"labels must be class numbers in [0, {classes}), got numbers from {low} to {high}. {advice}"


def integer(name: str, value: SupportsIndex) -> int:
    """Require an integer, also NumPy's or a 0-dim tensor, but no bool; returned as int."""
    if not isinstance(value, bool) and not str(getattr(value, "dtype", "")).endswith("bool"):
        with suppress(TypeError):
            return index(value)
    raise InputTypeError(f"{name} must be an integer, got {type(value).__name__} {value!r}")


def count(name: str, value: SupportsIndex) -> int:
    """Require an integer of at least 1, see :func:`integer`; returned as int."""
    number = integer(name, value)
    if not 1 <= number < 2**63:
        raise InputError(f"{name} must be at least 1{' and fit in 64 bits' if number > 0 else ''}, got {number}")
    return number


def at_least_0(name: str, value: SupportsIndex) -> int:
    """Require an integer of 0 or more, see :func:`integer`; returned as int."""
    number = integer(name, value)
    if not 0 <= number < 2**63:
        raise InputError(f"{name} must be an integer of 0 or more, got {number}")
    return number


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
    """Require ``(B, D)``, ``(C, K, D)`` and ``(B,)`` that fit together; returns the labels as int64."""
    vectors("embeddings", embeddings)
    centres(proxies)
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

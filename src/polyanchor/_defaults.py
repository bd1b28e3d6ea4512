"""torch's default device and dtype are the caller's; what the package makes for itself is on the CPU, in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_defaults() -> Iterator[None]:
    """Within it tensors are made on the CPU and in float32 where nothing else is said; also a decorator.

    Does nothing where that is so already: a device as a context costs every call to torch some time.

    Example:
        >>> with torch.device("meta"), own_defaults():
        ...     torch.zeros(1).device
        device(type='cpu')
    """
    dtype = torch.get_default_dtype()
    if dtype == torch.float32 and torch.get_default_device().type == "cpu":
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)

"""Independence of torch's default device and dtype, which are the caller's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_defaults() -> Iterator[None]:
    """Make new tensors on the CPU and in float32 by default, within a block or as a decorator.

    Does nothing if those are the defaults already, because a device context slows every call to torch.
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

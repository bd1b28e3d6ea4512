"""Memory: whether a run can fit into it, and freed memory kept: on a CPU this about doubles the speed of training.

Every step allocates the same large activations again. glibc returns each of them to the kernel when it is freed,
and the kernel clears every page when it is asked for anew; that took as long as the step itself.
"""

from __future__ import annotations

import ctypes
import os
import sys

from torch import Tensor

from polyanchor._errors import InputError
from polyanchor.data.items import Items
from polyanchor.training.config import Config

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # option numbers of mallopt(3)


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed memory for this process; True if it agreed, False where there is no glibc.

    Lasts until the process ends. Peak memory rises by some percent.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def require_room(config: Config, items: Items) -> None:
    """Refuse a run of which one part alone is larger than the machine's memory, before anything is allocated.

    Args:
        config: of the run.
        items: that train.

    Raises:
        InputError: names the part, its size and the key to lower.
    """
    room = _physical()
    for what, size, keys in _parts(config, items):
        if size > room:
            raise InputError(
                f"{what} would take {size / 2**30:,.1f} GiB, and this machine has {room / 2**30:,.1f} GiB; lower {keys}"
            )


def _parts(config: Config, items: Items) -> list[tuple[str, int, str]]:
    """What there is, its bytes, and what it follows from."""
    classes, dim = len(items.classes), config.model.embedding_dim
    drawn = min(config.batches.classes, classes) * config.batches.images
    batch = drawn if config.batches.kind == "balanced" else min(drawn, len(items))
    inputs = items.inputs
    each = inputs.shape[1] if isinstance(inputs, Tensor) else 3 * config.images.size**2
    processes = config.run.devices * config.run.nodes
    centres = classes * int(getattr(config.loss, "proxies_per_class", 1))
    own = centres // config.run.nodes if config.sharded else centres
    parts = [
        ("the inputs of a batch", 4 * batch * each // processes, "batches.classes, batches.images or images.size"),
        ("the embeddings of a batch", 4 * batch * dim, "batches.images or model.embedding_dim"),
        # values, gradient and the two moments of the optimizer
        ("the proxies in training", 16 * own * dim, "loss.proxies_per_class or model.embedding_dim"),
        ("the similarities of a batch", 4 * batch * own // processes, "loss.proxies_per_class or batches.images"),
    ]
    if isinstance(inputs, Tensor):
        parts.append(("the head in training", 16 * each * dim, "model.embedding_dim"))
    return parts


def _physical() -> int:
    """Bytes of memory; where the system does not say, as many as nothing exceeds."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return sys.maxsize

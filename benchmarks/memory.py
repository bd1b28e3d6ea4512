"""Peak extra memory of one call, in a fresh process.

The kernel counts: writing 5 to ``/proc/self/clear_refs`` sets the process's high-water mark (VmHWM) back to what is
resident now; after the call the mark less that is the extra memory, whoever allocated it. A small call of the same
kind comes first, so that code, thread pools and workspaces that exist once are not counted. Noise: pages that the
allocator kept from before are counted as no memory, about 1 MiB here; each script measures a call that needs nothing
extra beside the others.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

MIB = 1024**2


def status(field: str) -> int:
    """A field of ``/proc/self/status``, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        raise SystemExit("the memory benchmarks read /proc, which only Linux has") from None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def extra_mib(call: Callable[[], object], *, result_bytes: int = 0) -> float:
    """MiB that the call took at its peak, beyond what was resident before and the ``result_bytes`` that it leaves."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = status("VmRSS")
    call()
    return (status("VmHWM") - before - result_bytes) / MIB

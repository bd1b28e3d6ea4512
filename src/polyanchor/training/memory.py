"""Keep freed memory in the process: on a CPU this about doubles the speed of training.

Every step allocates the same large activations again. glibc returns each of them to the kernel when it is freed,
and the kernel clears every page when it is asked for anew; that took as long as the step itself.
"""

from __future__ import annotations

import ctypes
import sys

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

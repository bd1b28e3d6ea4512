"""Which operations of torch does the time go to? What explains a number that is not reached.

Every subject is one kind of operation: its own time, without those that it calls. The profiler costs some percent.

Run: python -m benchmarks.profiles
"""

from __future__ import annotations

import time
from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile

from benchmarks.common import Row, main, row
from benchmarks.losses import Problem
from benchmarks.retrieval import Gallery

QUESTION = "profiles"
WHOLE, REST = "whole", "all others, and Python"
TOP = 6
LOSSES = {
    "tiny": [(8, 20, 2)],
    "short": [(180, 98, 10), (180, 11_318, 1), (180, 11_318, 10), (180, 100_000, 1)],
}
GALLERIES = {"tiny": [(300, 5)], "short": [(20_000, 5), (20_000, 200)]}


def rows(size: str) -> list[Row]:
    """A row for each loss shape and each gallery; the long set is the short one."""
    size = "short" if size == "long" else size
    dim, found = (16 if size == "tiny" else 512), []
    for shape in LOSSES[size]:
        problem = Problem(*shape, dim=dim)
        for anchor in ("class", "mixed"):
            case = {"what": f"loss, {anchor}"} | problem.case
            found.append(row(QUESTION, case, parts(problem.ours(anchor), repeats=5), reference=WHOLE))
    for shape in GALLERIES[size]:
        gallery = Gallery(*shape, dim=dim)
        found.append(row(QUESTION, {"what": "evaluation"} | gallery.case, parts(gallery.ours), reference=WHOLE))
    return found


def parts(step: Callable[[], object], repeats: int = 1) -> dict[str, list[float]]:
    """Seconds of a step in all and in its costliest operations."""
    step()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        start = time.perf_counter()
        for _ in range(repeats):
            step()
        whole = (time.perf_counter() - start) / repeats
    own = {entry.key: entry.self_cpu_time_total / 1e6 / repeats for entry in seen.key_averages()}
    costly = sorted(own, key=lambda name: -own[name])[:TOP]
    found = {name: [own[name]] for name in costly}
    return {WHOLE: [whole]} | found | {REST: [whole - sum(own[name] for name in costly)]}


if __name__ == "__main__":
    main(QUESTION, rows, __doc__)

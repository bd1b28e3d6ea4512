"""How much memory does leave-one-out evaluation take beyond the embeddings?

Every number comes from a process of its own; benchmarks/memory.py has the method.

Run: python -m benchmarks.evaluation_memory [--size long]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from benchmarks.common import Row, Target, child, interleaved, main, row, use_threads
from benchmarks.memory import extra_mib
from benchmarks.retrieval import FAISS, OML, OURS, PML, TORCHMETRICS, Evaluation, Gallery

QUESTION = "evaluation_memory"
LIMIT = 512.0  # MiB
# (N, items per class, D, peers); the peers on a smaller N, where all of them fit into the machine
CASES = {
    "tiny": [(300, 5, 16, (PML,))],
    "short": [(60_502, 5, 512, ()), (2_000, 5, 512, (PML, OML, TORCHMETRICS, FAISS))],
}
CASES["long"] = [*CASES["short"], (60_502, 200, 512, ()), (20_000, 5, 512, (PML, OML, FAISS))]


def rows(size: str) -> list[Row]:
    """One row a case."""
    return [measured(*case) for case in CASES[size]]


def measured(items: int, per_class: int, dim: int, peers: tuple[str, ...]) -> Row:
    """The row of one case, each number from a process of its own."""
    names = [OURS, *Gallery(8, per_class, 4).peers(*peers)]
    samples = interleaved({name: in_child(name, items, per_class, dim) for name in names}, rounds=1, warm_up=0)
    case = {"N": items, "D": dim, "items per class": per_class}
    return row(QUESTION, case, samples, unit="MiB", reference=OURS, targets=[Target(OURS, LIMIT)])


def in_child(name: str, *shape: int) -> Callable[[], float]:
    """The measurement of one subject as a function."""
    return lambda: child("benchmarks.evaluation_memory", "--one", name, *shape)


def one(name: str, items: int, per_class: int, dim: int) -> float:
    """The number of one subject, in this process."""
    subject(name, Gallery(min(items, 500), per_class, dim))()
    return extra_mib(subject(name, Gallery(items, per_class, dim)))


def subject(name: str, gallery: Gallery) -> Evaluation:
    """What a name of the table stands for."""
    return gallery.ours if name == OURS else gallery.peers(name)[name]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        use_threads()
        print(json.dumps(one(sys.argv[2], *map(int, sys.argv[3:]))))
    else:
        main(QUESTION, rows, __doc__)

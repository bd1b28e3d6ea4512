"""How long does leave-one-out evaluation take, beside one full N x N product?

Run: python -m benchmarks.evaluation_time [--size long]
"""

from __future__ import annotations

from benchmarks.common import Row, Target, interleaved, main, row, timed
from benchmarks.retrieval import FAISS, OML, OURS, PML, PRODUCT, TORCHMETRICS, Gallery, agree

QUESTION = "evaluation_time"
PER_CLASS = 5, 200  # as in Stanford Online Products; as in data with few, large classes
LIMIT = 0.65
LARGE = 10_000  # from here the target holds: below it, passes over small arrays weigh more than the products
# what is measured in each size: (N, rounds, peers)
CASES = {
    "tiny": [(300, 2, (PML, OML, TORCHMETRICS, FAISS))],
    "short": [(2_000, 3, (PML, OML, TORCHMETRICS, FAISS)), (20_000, 5, (PML, OML, FAISS))],
}
CASES["long"] = [*CASES["short"], (60_502, 3, ())]
SLOW = "torchmetrics keeps all N x N pairs and loops over queries: measured at N 2,000 only"


def rows(size: str) -> list[Row]:
    """A row for each N and size of class."""
    return [
        measured(Gallery(items, per_class, dim=32 if size == "tiny" else 512), rounds, peers)
        for items, rounds, peers in CASES[size]
        for per_class in PER_CLASS
    ]


def measured(gallery: Gallery, rounds: int, peers: tuple[str, ...]) -> Row:
    """The row of one set of embeddings."""
    subjects = {OURS: gallery.ours, PRODUCT: gallery.product()} | gallery.peers(*peers)
    agree({name: subject() for name, subject in subjects.items()})  # the warm-up round as well
    samples = interleaved({name: timed(run) for name, run in subjects.items()}, rounds=rounds, warm_up=0)
    targets = [Target(OURS, LIMIT, of=PRODUCT)] if gallery.items >= LARGE else []
    notes = [] if TORCHMETRICS in subjects else [SLOW]
    return row(QUESTION, gallery.case, samples, reference=PRODUCT, targets=targets, notes=notes)


if __name__ == "__main__":
    main(QUESTION, rows, __doc__)

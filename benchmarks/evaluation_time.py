"""How long does leave-one-out evaluation take, beside one full N x N product?

Run: python -m benchmarks.evaluation_time [--size long]
"""

from __future__ import annotations

from benchmarks.common import Row, Target, interleaved, main, row, timed
from benchmarks.retrieval import FAISS, OML, OURS, PML, PRODUCT, TORCHMETRICS, Gallery, agree

QUESTION = "evaluation_time"
FEW, MANY = 5, 200  # items per class, as in Stanford Online Products; as in data with few, large classes
LIMIT = 0.65
LARGE = 10_000  # from here the target holds: below it, passes over small arrays weigh more than the products
ALL = PML, OML, TORCHMETRICS, FAISS
# (N, items per class, rounds, peers); torchmetrics and, at 20,000, open-metric-learning would fill the short set
CASES = {
    "tiny": [(300, FEW, 2, ALL), (300, MANY, 2, (PML, OML, FAISS))],
    "short": [
        (1_000, FEW, 2, ALL),
        (20_000, FEW, 3, (PML, FAISS)),
        (20_000, MANY, 3, (PML, FAISS)),
        (60_502, FEW, 2, ()),  # the test set of Stanford Online Products; two rounds take one to two minutes
    ],
    "long": [
        (2_000, FEW, 5, ALL),
        (2_000, MANY, 5, ALL),
        (20_000, FEW, 5, (PML, OML, FAISS)),
        (20_000, MANY, 5, (PML, OML, FAISS)),
        (60_502, FEW, 3, ()),
        (60_502, MANY, 3, ()),
    ],
}
SLOW = "torchmetrics keeps all N x N pairs and loops over queries, so it is measured at small N only"


def rows(size: str) -> list[Row]:
    """One row a case."""
    dim = 32 if size == "tiny" else 512
    return [measured(Gallery(items, classed, dim), rounds, peers) for items, classed, rounds, peers in CASES[size]]


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

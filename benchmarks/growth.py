"""How does the cost grow: of the loss with B, C and K, of the evaluation with N? Drawn by docs/figures/performance.py.

Run: python -m benchmarks.growth [--size long]
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.common import Row, interleaved, main, row, timed
from benchmarks.losses import PRODUCTS, Problem
from benchmarks.retrieval import OURS, PML, PRODUCT, Gallery
from polyanchor.training.trainer import keep_freed_memory

QUESTION = "growth"
BASE = {"B": 180, "C": 11_318, "K": 1}
ALONG = {
    "tiny": {"B": [4, 8], "C": [10, 20], "K": [1, 2], "N": [200, 300]},
    "short": {
        "B": [30, 60, 120, 180, 360],
        "C": [100, 1_000, 3_000, 11_318, 30_000],
        "K": [1, 2, 5, 10],
        "N": [2_500, 5_000, 10_000],
    },
}
ALONG["long"] = ALONG["short"] | {
    "C": [100, 1_000, 3_000, 11_318, 30_000, 100_000],
    "K": [1, 2, 5, 10, 20],
    "N": [2_500, 5_000, 10_000, 20_000, 40_000],
}


def rows(size: str) -> list[Row]:
    """A row for each point of each line."""
    of_evaluation = list(along_the_evaluation(size))  # first: what comes now cannot be taken back
    keep_freed_memory()  # as in loss_time
    return [*along_the_loss(size), *of_evaluation]


def along_the_loss(size: str) -> Iterator[Row]:
    """One of B, C and K moves, the others stay."""
    for axis in ("B", "C", "K"):
        for value in ALONG[size][axis]:
            shape = (BASE if size != "tiny" else {"B": 8, "C": 20, "K": 1}) | {axis: value}
            problem = Problem(shape["B"], shape["C"], shape["K"], dim=512 if size != "tiny" else 16)
            steps = {"polyanchor class": problem.ours("class"), "polyanchor data": problem.ours("data")}
            steps |= {PRODUCTS: problem.products()} | problem.peers()
            samples = interleaved({name: timed(step) for name, step in steps.items()}, rounds=9, seconds=1)
            yield row(QUESTION, {"along": axis} | problem.case, samples, reference=PRODUCTS)


def along_the_evaluation(size: str) -> Iterator[Row]:
    """N moves; about five items a class."""
    for items in ALONG[size]["N"]:
        gallery = Gallery(items, per_class=5, dim=512 if size != "tiny" else 16)
        subjects = {OURS: gallery.ours, PRODUCT: gallery.product()} | gallery.peers(PML)
        samples = interleaved({name: timed(run) for name, run in subjects.items()}, rounds=3)
        yield row(QUESTION, {"along": "N"} | gallery.case, samples, reference=PRODUCT)


if __name__ == "__main__":
    main(QUESTION, rows, __doc__)

"""How long do forward and backward of the loss take, beside the three products that any exact loss must compute?

Run: python -m benchmarks.loss_time [--size long]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.common import Row, Target, interleaved, main, row, timed
from benchmarks.losses import ANCHORS, PRODUCTS, PROXY_ANCHOR, SOFT_TRIPLE, SQUARE, Problem
from polyanchor.training.trainer import keep_freed_memory

QUESTION = "loss_time"
SHAPES = {
    "tiny": [(8, 20, 1), (8, 20, 2)],
    "short": [(180, 98, 10), (180, 11_318, 1), (180, 11_318, 2), (180, 11_318, 10), (180, 100_000, 1)],
}
SHAPES["long"] = SHAPES["short"]
DEFAULT = "freed memory returned"
AS_IT_IS = {"tiny": [], "short": [(180, 11_318, 1), (180, 100_000, 1)]}
AS_IT_IS["long"] = AS_IT_IS["short"]
SECONDS = {"tiny": 1, "short": 8, "long": 120}  # for the rounds of one shape, of which there are five or more


def rows(size: str) -> list[Row]:
    """One row a shape; all three members of the family and the peers in the same rounds.

    Freed memory stays in the process, as `polyanchor train` has it: the reference writes into memory that is already
    there, and how fast the kernel clears pages is not the question. A loop of one's own has the C library's default,
    and pays for it; so two shapes are measured with that as well, first, since there is no way back.
    """
    dim = 16 if size == "tiny" else 512
    found = [measured(Problem(*shape, dim=dim), size, {"memory": DEFAULT}) for shape in AS_IT_IS[size]]
    keep_freed_memory()
    return found + [measured(Problem(*shape, dim=dim), size, {}) for shape in SHAPES[size]]


def measured(problem: Problem, size: str, extra: dict[str, str]) -> Row:
    """The row of one shape."""
    steps = {f"polyanchor {anchor}": problem.ours(anchor) for anchor in ANCHORS}
    steps[PRODUCTS] = problem.products()
    steps |= problem.peers()
    slow = ANCHORS[:1] if size == "short" else ANCHORS  # "eager" is the slowest of all, and the short set is short
    steps |= {f"polyanchor {anchor}, eager": problem.ours(anchor, "eager") for anchor in slow}
    agree({name: step() for name, step in steps.items()})  # the warm-up round as well
    subjects = {name: timed(step) for name, step in steps.items()}
    subjects[SQUARE] = square(problem.operations, edge=64 if size == "tiny" else 2048)
    samples = interleaved(subjects, rounds=30, seconds=SECONDS[size], warm_up=0)
    return row(QUESTION, problem.case | extra, samples, reference=PRODUCTS, targets=targets(problem))


def agree(values: dict[str, Tensor]) -> None:
    """Refuse to time two different things: the same tensors must give the same loss."""
    for name, value in values.items():
        anchor = "class" if name == PROXY_ANCHOR else name.removeprefix("polyanchor ").removesuffix(", eager")
        if anchor in ANCHORS:
            torch.testing.assert_close(value, values[f"polyanchor {anchor}"], rtol=1e-4, atol=1e-5)


def square(operations: int, edge: int) -> Callable[[], float]:
    """The seconds that so many operations take at the rate of one ``edge x edge x edge`` product."""
    left, right, out = torch.rand(edge, edge), torch.rand(edge, edge), torch.empty(edge, edge)
    seconds = timed(lambda: torch.mm(left, right, out=out))
    return lambda: seconds() * operations / (2 * edge**3)


def targets(problem: Problem) -> list[Target]:
    """The numbers to reach, for every member of the family."""
    peer = PROXY_ANCHOR if problem.centres == 1 else SOFT_TRIPLE
    found = []
    for anchor in ANCHORS:
        if problem.classes < 1_000:
            limit, faster = 1.6, 2.5
        elif problem.classes < 50_000:
            limit, faster = 1.0, 3.5
        else:
            limit, faster = (1.2 if anchor == "class" else 1.4), 4.0
        found.append(Target(f"polyanchor {anchor}", limit, of=PRODUCTS))
        found.append(Target(peer, faster, of=f"polyanchor {anchor}", least=True))
    return found


if __name__ == "__main__":
    main(QUESTION, rows, __doc__)

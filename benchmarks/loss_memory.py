"""How much memory does a step of the loss take beyond its inputs and their gradients?

Every number comes from a process of its own; benchmarks/memory.py has the method.

Run: python -m benchmarks.loss_memory [--size long]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import torch

from benchmarks.common import Row, Target, child, interleaved, main, row, use_threads
from benchmarks.losses import ANCHORS, ARC_FACE, PROXY_ANCHOR, SOFT_TRIPLE, Problem
from benchmarks.memory import extra_mib

QUESTION = "loss_memory"
LIMIT = 64.0  # MiB
NOTHING = "nothing but the gradients"  # what the method itself is off by
SHAPES = {
    "tiny": [(8, 20, 1, 16)],
    "short": [(180, 11_318, 1, 512), (180, 11_318, 10, 512), (180, 100_000, 1, 512)],
}
SHAPES["long"] = [(180, 98, 10, 512), *SHAPES["short"], (180, 100_000, 10, 512)]
ROUNDS = {"tiny": 1, "short": 1, "long": 3}


def rows(size: str) -> list[Row]:
    """One row a shape."""
    return [measured(shape, ROUNDS[size]) for shape in SHAPES[size]]


def measured(shape: tuple[int, ...], rounds: int) -> Row:
    """The row of one shape, each number from a process of its own."""
    batch, classes, centres, dim = shape
    names = [f"polyanchor {anchor}" for anchor in ANCHORS]
    names += ["polyanchor class, eager", NOTHING, *Problem(4, 4, centres, 4).peers()]
    if classes < 50:  # a smoke test: a process for each takes its time
        names = [names[0], NOTHING]
    samples = interleaved({name: in_child(name, shape) for name in names}, rounds=rounds, warm_up=0)
    targets = [Target(f"polyanchor {anchor}", LIMIT) for anchor in ANCHORS]
    case = {"B": batch, "D": dim, "C": classes, "K": centres}
    return row(QUESTION, case, samples, unit="MiB", reference="polyanchor class", targets=targets)


def in_child(name: str, shape: tuple[int, ...]) -> Callable[[], float]:
    """The measurement of one subject as a function."""
    return lambda: child("benchmarks.loss_memory", "--one", name, *shape)


def one(name: str, shape: tuple[int, ...]) -> float:
    """The number of one subject, in this process."""
    batch, classes, centres, dim = shape
    subject(name, Problem(min(batch, 32), min(classes, 64), centres, dim))()
    problem = Problem(*shape)
    return extra_mib(subject(name, problem), result_bytes=problem.gradient_bytes())


def subject(name: str, problem: Problem) -> Callable[[], object]:
    """What a name of the table stands for."""
    if name == NOTHING:
        return lambda: gradients(problem)
    if name in (PROXY_ANCHOR, SOFT_TRIPLE, ARC_FACE):
        return problem.peers()[name]
    anchor, _, impl = name.removeprefix("polyanchor ").partition(", ")
    return problem.ours(anchor, impl or "auto")


def gradients(problem: Problem) -> None:
    """Gradients as a step leaves them."""
    problem.embeddings.grad = torch.ones_like(problem.embeddings)
    problem.proxies.grad = torch.ones_like(problem.proxies)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        use_threads()
        print(json.dumps(one(sys.argv[2], tuple(map(int, sys.argv[3:])))))
    else:
        main(QUESTION, rows, __doc__)

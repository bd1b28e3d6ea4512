"""Does keeping freed memory in the process pay? A training step of lite0 at 128 px, batch 120, with and without.

Run: python -m benchmarks.kept_memory
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable

from benchmarks.common import Row, child, interleaved, main, row, timed, use_threads

QUESTION = "kept_memory"
KEPT, RETURNED = "freed memory kept", "freed memory returned"
STEPS = {"tiny": 1, "short": 6, "long": 6}
SHAPES = {"tiny": (2, 32), "short": (120, 128), "long": (120, 128)}
ROUNDS = {"tiny": 1, "short": 3, "long": 7}


def rows(size: str) -> list[Row]:
    """One row; every number is the median step of a process of its own."""
    batch, pixels = SHAPES[size]
    subjects = {name: in_child(name, batch, pixels, STEPS[size]) for name in (KEPT, RETURNED)}
    samples = interleaved(subjects, rounds=ROUNDS[size], warm_up=0)
    case = {"model": "tf_efficientnet_lite0", "B": batch, "pixels": pixels}
    return [row(QUESTION, case, samples, reference=RETURNED)]


def in_child(name: str, *shape: int) -> Callable[[], float]:
    """The measurement of one setting as a function."""
    return lambda: child("benchmarks.kept_memory", "--one", name, *shape)


def one(name: str, batch: int, pixels: int, steps: int) -> float:
    """Seconds of the median step in this process, after two that do not count."""
    import torch

    from polyanchor.models.embedding import create_model
    from polyanchor.training.trainer import keep_freed_memory

    if name == KEPT and not keep_freed_memory():
        raise SystemExit("this C library cannot keep freed memory")
    model = create_model("tf_efficientnet_lite0", embedding_dim=128, freeze_bn=True)
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.randn(batch, 3, pixels, pixels).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        model(images)[:, 0].sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return statistics.median([timed(step)() for _ in range(2 + steps)][2:])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        use_threads()
        print(json.dumps(one(sys.argv[2], *map(int, sys.argv[3:]))))
    else:
        main(QUESTION, rows, __doc__)

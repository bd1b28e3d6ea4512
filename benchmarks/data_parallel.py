"""What does a training step take if two ranks share the batch, beside one process of one and of two threads?

A step is forward, loss, backward and AdamW of tf_efficientnet_lite0 with fixed batch norms on B images that are decoded
already, 98 classes, K 10, ``"mixed"``. Two ranks of one thread have B / 2 images each, with DistributedDataParallel and
the gathered loss. Wall time of the slower rank, and processor time of a rank, which does not grow where others use the
machine too.

Run: python -m benchmarks.data_parallel [--size long]
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from benchmarks.common import Row, main, row
from benchmarks.ranks import answer, in_rounds, started

QUESTION = "data_parallel"
ONE, BOTH, RANKS = "one rank of one thread", "one rank of two threads", "two ranks of one thread"
SHAPES = {"tiny": (4, 32), "short": (120, 128), "long": (120, 128)}
ROUNDS = {"tiny": 1, "short": 5, "long": 11}


def rows(size: str) -> list[Row]:
    """Wall time and processor time of a step."""
    ranks = started(QUESTION, 2, ROUNDS[size], *SHAPES[size])
    case = dict(zip(("B", "pixels"), SHAPES[size], strict=True)) | {"model": "tf_efficientnet_lite0"}
    found = []
    for of, clock in (("step", "wall"), ("processor time of a rank", "own")):
        samples = {name: ranks[0][f"{name}, {clock}"] for name in (ONE, BOTH)}
        samples[RANKS] = [max(both) for both in zip(*(rank[f"{RANKS}, {clock}"] for rank in ranks), strict=True)]
        found.append(row(QUESTION, case | {"of": of}, samples, reference=ONE))
    return found


def one(rounds: int, batch: int, pixels: int) -> dict[str, list[float]]:
    """Seconds of each round on this rank."""
    steps = {RANKS: step_of(batch, pixels, together=True)}
    if dist.get_rank() == 0:
        steps[ONE] = steps[BOTH] = step_of(batch, pixels, together=False)
    return in_rounds(steps, (ONE, BOTH, RANKS), rounds, two_threads=BOTH)


def step_of(batch: int, pixels: int, *, together: bool) -> Callable[[], None]:
    """A step of this rank with its part of the batch, or with all of it."""
    import polyanchor as pa
    from polyanchor.distributed.data_parallel import DataParallelLoss
    from polyanchor.models.embedding import create_model
    from polyanchor.training.trainer import keep_freed_memory

    keep_freed_memory()
    torch.manual_seed(0)
    model = create_model("tf_efficientnet_lite0", embedding_dim=128, freeze_bn=True).train()
    model = model.to(memory_format=torch.channels_last)
    loss = pa.MultiProxyAnchorLoss(98, 128, anchor="mixed")
    mine = slice(dist.get_rank(), None, 2) if together else slice(None)
    images = torch.randn(batch, 3, pixels, pixels)[mine].contiguous(memory_format=torch.channels_last)
    labels = (torch.arange(batch) % 30)[mine]
    network = DistributedDataParallel(model) if together else model
    joined = DataParallelLoss(loss) if together else loss
    optimizer = torch.optim.AdamW([*model.parameters(), *loss.parameters()], lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        joined(network(images), labels).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        answer(lambda: one(*map(int, sys.argv[2:])))
    else:
        main(QUESTION, rows, __doc__)

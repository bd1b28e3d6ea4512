"""What does a step of the loss and of its AdamW take on each rank, if two ranks share the classes?

One process with all classes beside two ranks with half of them each, a thread for each process, the same batch of B
items (B / 2 from each of two ranks); and one process with two threads, which is what two cores do without ranks. Wall
time of the slower rank; processor time of a rank, which does not grow where others use the machine too; and memory of a
rank at its peak beyond the program itself, in fresh processes.

Run: python -m benchmarks.sharded_loss [--size long]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from benchmarks.common import Row, Target, main, row
from benchmarks.losses import ANCHORS
from benchmarks.memory import extra_mib
from benchmarks.ranks import answer, in_rounds, started

QUESTION = "sharded_loss"
WHOLE, BOTH, HALF = "one process", "one process of two threads", "each of two ranks"
SHAPES = {"tiny": [(8, 20, 1, 16)], "short": [(180, 11_318, 10, 512), (180, 100_000, 1, 512)]}
SHAPES["long"] = [(180, 11_318, 1, 512), *SHAPES["short"]]
ROUNDS = {"tiny": 1, "short": 7, "long": 15}
WHATS = {"step": "s", "processor time": "s", "peak memory": "MiB"}


def rows(size: str) -> list[Row]:
    """Three rows for each shape and member of the family."""
    found = []
    for shape in SHAPES[size]:
        for anchor in ANCHORS if size != "tiny" else ANCHORS[:1]:
            seconds = started(QUESTION, 2, "time", anchor, ROUNDS[size], *shape)
            memory = {
                name: [max(started(QUESTION, count, "memory", anchor, 1, *shape))]
                for name, count in ((WHOLE, 1), (HALF, 2))
            }
            samples = {
                "step": {name: [max(both) for both in of] for name, of in by_round(seconds, "wall").items()},
                "processor time": {name: [max(both) for both in of] for name, of in by_round(seconds, "own").items()},
                "peak memory": memory,
            }
            for what, unit in WHATS.items():
                case = dict(zip(("B", "C", "K", "D"), shape, strict=True)) | {"anchor": anchor, "of": what}
                aims = [Target(HALF, 0.6, of=WHOLE)] if size != "tiny" else []
                found.append(row(QUESTION, case, samples[what], unit=unit, reference=WHOLE, targets=aims))
    return found


def by_round(seconds: list[dict[str, Any]], clock: str) -> dict[str, list[tuple[float, ...]]]:
    """Of each round, the numbers of the ranks that worked; rank 0 alone for one process."""
    return {
        **{name: [(value,) for value in seconds[0][f"{name}, {clock}"]] for name in (WHOLE, BOTH)},
        HALF: list(zip(*(rank[f"{HALF}, {clock}"] for rank in seconds), strict=True)),
    }


def one(kind: str, anchor: str, rounds: int, *shape: int) -> Any:
    """Seconds of each round, or MiB, on this rank."""
    if kind == "memory":
        step_of(anchor, None if dist.get_world_size() == 1 else ring(), 8, 64, *shape[2:])()()
        return extra_mib(lambda: step_of(anchor, None if dist.get_world_size() == 1 else ring(), *shape)()())
    steps = {HALF: step_of(anchor, ring(), *shape)()}
    if dist.get_rank() == 0:
        steps[WHOLE] = steps[BOTH] = step_of(anchor, None, *shape)()
    return in_rounds(steps, (WHOLE, BOTH, HALF), rounds, two_threads=BOTH)


def ring() -> DeviceMesh:
    """All ranks."""
    return DeviceMesh("cpu", list(range(dist.get_world_size())))


def step_of(
    anchor: str, mesh: DeviceMesh | None, batch: int, classes: int, centres: int, dim: int
) -> Callable[[], Callable[[], None]]:
    """What makes a loss and its optimizer, and gives their step: forward, backward, AdamW."""
    import polyanchor as pa
    from polyanchor.distributed.sharded_loss import ShardedMultiProxyAnchorLoss

    def make() -> Callable[[], None]:
        options: dict[str, Any] = {"proxies_per_class": centres, "anchor": anchor}
        torch.manual_seed(0)
        loss = (
            pa.MultiProxyAnchorLoss(classes, dim, **options)
            if mesh is None
            else ShardedMultiProxyAnchorLoss(classes, dim, mesh=mesh, **options)
        )
        optimizer = torch.optim.AdamW(loss.parameters(), lr=1e-2)
        mine = slice(None) if mesh is None else slice(mesh.get_local_rank(), None, mesh.size())
        embeddings, labels = torch.randn(batch, dim)[mine].requires_grad_(), torch.randint(classes, (batch,))[mine]

        def step() -> None:
            optimizer.zero_grad()
            embeddings.grad = None
            loss(embeddings, labels).backward()
            optimizer.step()

        return step

    return make


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        kind, anchor, *numbers = sys.argv[2:]
        answer(lambda: one(kind, anchor, *map(int, numbers)))
    else:
        main(QUESTION, rows, __doc__)

"""What does a batch in pieces take at its peak, and how long, beside the same batch in one piece?

A step is forward, loss and backward of tf_efficientnet_lite0 at 128 px with fixed batch norms and 98 classes, K 10.
Every number comes from a process of its own, after a small step; benchmarks/memory.py has the method. The gradients
of the network are left out, as they are the result.

Run: nice python -m benchmarks.piece_memory
"""

from __future__ import annotations

import json
import sys
import time

from benchmarks.common import Row, child, main, row, use_threads
from benchmarks.memory import extra_mib

QUESTION = "piece_memory"
SHAPES = {"tiny": [(4, 2, 32)], "short": [(240, 60, 128), (480, 60, 128)], "long": [(240, 60, 128), (480, 60, 128)]}
ROUNDS = {"tiny": 1, "short": 1, "long": 3}
WHOLE = "whole batch"
MOST = 240  # items in one piece in the short set: 480 take 12 GB


def rows(size: str) -> list[Row]:
    """Peak memory and processor time of one step: two rows a shape."""
    return [found for shape in SHAPES[size] for found in measured(shape, size)]


def measured(shape: tuple[int, int, int], size: str) -> list[Row]:
    """The rows of one shape; processor time, as it does not grow where others use the machine too."""
    batch, piece, pixels = shape
    names = {WHOLE: 0} if batch <= MOST or size == "long" else {}
    found = {
        name: [child("benchmarks.piece_memory", "--one", batch, at_once, pixels) for _ in range(ROUNDS[size])]
        for name, at_once in {**names, f"pieces of {piece}": piece}.items()
    }
    case = {"model": "tf_efficientnet_lite0", "B": batch, "pixels": pixels}
    return [
        row(
            QUESTION,
            case | {"of": what},
            {name: [one[unit] for one in ones] for name, ones in found.items()},
            unit=unit,
            reference=WHOLE if WHOLE in names else None,
        )
        for what, unit in (("peak memory of a step", "MiB"), ("processor time of a step", "s"))
    ]


def one(batch: int, piece: int, pixels: int) -> dict[str, float]:
    """MiB and processor seconds of a step in this process."""
    import torch

    import polyanchor as pa
    from polyanchor.models.embedding import create_model

    model = create_model("tf_efficientnet_lite0", embedding_dim=128, freeze_bn=True).train()
    model = model.to(memory_format=torch.channels_last)
    loss = pa.MultiProxyAnchorLoss(98, 128)

    def step(items: int) -> None:
        model.zero_grad()
        loss(pa.embed_in_micro_batches(model, images[:items], piece), labels[:items]).backward()

    images = torch.randn(batch, 3, pixels, pixels).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch) % 98
    step(2)
    gradients = sum(parameter.nbytes for parameter in model.parameters())
    model.zero_grad()
    begun = time.process_time()
    memory = extra_mib(lambda: step(batch), result_bytes=gradients)
    return {"MiB": memory, "s": time.process_time() - begun}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        use_threads()
        print(json.dumps(one(*map(int, sys.argv[2:]))))
    else:
        main(QUESTION, rows, __doc__)

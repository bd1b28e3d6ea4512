"""What does a training step with a million classes take on one device, and what does the form of the optimizer change?

A step is forward and backward of the loss and the optimizer's step, B embeddings, C x K proxies of D dimensions. Peak
memory is that of making the loss and the optimizer and doing two steps, beyond the program itself; its state after them
is given beside. Every form of the optimizer has a process of its own. torchao, whose AdamW keeps its moments in 8 bits,
is measured where it is installed.

Run: python -m benchmarks.million_classes [--size long]
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

from benchmarks.common import Row, Target, child, main, row, use_threads
from benchmarks.losses import ANCHORS
from benchmarks.memory import MIB, extra_mib

QUESTION = "million_classes"
SHAPES = {"tiny": (8, 300, 1, 16), "short": (180, 1_000_000, 1, 128), "long": (180, 1_000_000, 1, 128)}
STEPS = {"tiny": 1, "short": 5, "long": 15}
GIB_24 = 24 * 1024.0

Make = Callable[[Iterable[torch.nn.Parameter]], Any]
ADAMW = "AdamW"
FORMS: dict[str, Make] = {
    ADAMW: lambda proxies: torch.optim.AdamW(proxies, lr=1e-2),
    "AdamW fused=True": lambda proxies: torch.optim.AdamW(proxies, lr=1e-2, fused=True),
    "AdamW foreach=True": lambda proxies: torch.optim.AdamW(proxies, lr=1e-2, foreach=True),
    "AdamW foreach=False": lambda proxies: torch.optim.AdamW(proxies, lr=1e-2, foreach=False),
    "SGD momentum 0.9": lambda proxies: torch.optim.SGD(proxies, lr=1e-2, momentum=0.9),
    "SGD": lambda proxies: torch.optim.SGD(proxies, lr=1e-2),
    "torchao AdamW8bit": lambda proxies: _torchao().AdamW8bit(proxies, lr=1e-2),
}


def rows(size: str) -> list[Row]:
    """Three rows: seconds of a step, peak memory, the optimizer's state; then a step of each member of the family."""
    forms = [name for name in FORMS if not name.startswith("torchao") or _torchao() is not None]
    found = {name: child("benchmarks.million_classes", "--one", name, "class", size) for name in forms}
    case = dict(zip(("B", "C", "K", "D"), SHAPES[size], strict=True))
    made = []
    for of, unit in (("step", "s"), ("optimizer's part of it", "s"), ("peak memory", "MiB"), ("state", "MiB")):
        samples = {name: one[of] for name, one in found.items()}
        aims = [Target(ADAMW, GIB_24)] if of == "peak memory" else []
        about = case | {"anchor": "class", "of": of}
        made.append(row(QUESTION, about, samples, unit=unit, reference=ADAMW, targets=aims))
    if size != "tiny":
        members = {anchor: child("benchmarks.million_classes", "--one", ADAMW, anchor, size) for anchor in ANCHORS[1:]}
        members = {ANCHORS[0]: found[ADAMW]} | members
        samples = {anchor: one["step"] for anchor, one in members.items()}
        made.append(row(QUESTION, case | {"of": "step, AdamW, by member"}, samples, reference=ANCHORS[0]))
    return made


def one(form: str, anchor: str, size: str) -> dict[str, list[float]]:
    """Seconds of each step and MiB, in this process."""
    import polyanchor as pa

    batch, classes, centres, dim = SHAPES[size]
    embeddings, labels = torch.randn(batch, dim, requires_grad=True), torch.randint(classes, (batch,))
    kept: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {"step": [], "optimizer's part of it": []}

    def begin(classes: int) -> None:
        kept["loss"] = pa.MultiProxyAnchorLoss(classes, dim, proxies_per_class=centres, anchor=anchor)
        kept["optimizer"] = FORMS[form](kept["loss"].parameters())
        for _ in range(2):
            step(labels % classes)

    def step(labels: torch.Tensor) -> None:
        begun = time.perf_counter()
        kept["optimizer"].zero_grad()
        kept["loss"](embeddings, labels).backward()
        computed = time.perf_counter()
        kept["optimizer"].step()
        seconds["step"].append(time.perf_counter() - begun)
        seconds["optimizer's part of it"].append(time.perf_counter() - computed)

    begin(100)  # what exists once, and what is compiled
    kept.clear()
    memory = extra_mib(lambda: begin(classes))
    for values in seconds.values():
        values.clear()
    for _ in range(STEPS[size]):
        step(labels)
    state = next(iter(kept["optimizer"].state.values()), {})
    held = sum(_bytes(value) for value in state.values() if isinstance(value, torch.Tensor))
    return {**seconds, "peak memory": [memory], "state": [held / MIB]}


def _bytes(tensor: Any) -> int:
    """Of a plain tensor, or of the parts that a compressed one consists of."""
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(getattr(tensor, name).nbytes for name in tensor.__tensor_flatten__()[0])
    return int(tensor.nbytes)


def _torchao() -> Any:
    try:
        import torchao.optim
    except ImportError:
        return None
    return torchao.optim


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        use_threads()
        print(json.dumps(one(*sys.argv[2:])))
    else:
        main(QUESTION, rows, __doc__)

"""How long do ``import`` and ``--help`` take, each in a fresh process?

Run: python -m benchmarks.startup
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable

from benchmarks.common import Row, Target, interleaved, main, row, timed

QUESTION = "startup"
TORCH, OURS = "import torch", "import polyanchor"
# `import polyanchor` alone defers even torch; what a training loop needs is this
USED = "import polyanchor; polyanchor.MultiProxyAnchorLoss; polyanchor.evaluate_retrieval"
PEERS = {
    "import pytorch_metric_learning.losses": "pytorch_metric_learning",
    "from oml.losses import ArcFaceLoss": "oml",
    "import torchmetrics": "torchmetrics",
    "import faiss": "faiss",
}
SLOW = "from oml.losses import ArcFaceLoss", "import torchmetrics"  # some 7 s each: left to the long set
COMMANDS = ["--help"], ["train", "--help"]
ROUNDS = {"tiny": 1, "short": 3, "long": 21}


def rows(size: str) -> list[Row]:
    """Imports in one row, help texts in another."""
    statements = [TORCH, OURS]
    if size != "tiny":
        peers = {line: package for line, package in PEERS.items() if size == "long" or line not in SLOW}
        installed = [line for line, package in peers.items() if importlib.util.find_spec(package) is not None]
        statements += [USED, *installed]
    imports = {line: timed(process("-c", line)) for line in statements}
    helps = {f"polyanchor {' '.join(words)}": timed(process("-m", "polyanchor", *words)) for words in COMMANDS}
    nothing = {"python -c pass": timed(process("-c", "pass"))}
    rounds, warm_up = ROUNDS[size], int(size != "tiny")
    found = [
        interleaved(imports | nothing, rounds=rounds, warm_up=warm_up),
        interleaved(helps | nothing, rounds=rounds, warm_up=warm_up),
    ]
    share = [Target(OURS, 1.05, of=TORCH), Target(USED, 1.05, of=TORCH)]
    return [
        row(QUESTION, {"what": "import"}, found[0], reference=TORCH, targets=share),
        row(QUESTION, {"what": "help"}, found[1], targets=[Target(name, 0.4) for name in helps]),
    ]


def process(*arguments: str) -> Callable[[], object]:
    """A fresh interpreter, from its start to its end."""
    return lambda: subprocess.run([sys.executable, *arguments], capture_output=True, check=True)


if __name__ == "__main__":
    main(QUESTION, rows, __doc__)

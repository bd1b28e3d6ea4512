"""Does keeping freed memory in the process pay? One training step of lite0 at 128 px, batch 120, with and without.

Run: python benchmarks/kept_memory.py
"""

import platform
import statistics
import subprocess
import sys

import torch

STEP = """
import sys, time, torch
from polyanchor.models.embedding import create_model
from polyanchor.training.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
torch.set_num_threads(2)
model = create_model("tf_efficientnet_lite0", embedding_dim=128, freeze_bn=True)
model = model.to(memory_format=torch.channels_last).train()
optimizer = torch.optim.AdamW(model.parameters())
images = torch.randn(120, 3, 128, 128).contiguous(memory_format=torch.channels_last)
for step in range(8):
    start = time.perf_counter()
    model(images)[:, 0].sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    if step >= 2:
        print(time.perf_counter() - start)
"""


def steps(mode: str) -> list[float]:
    """Seconds of six steps in a process of their own, after two that do not count."""
    done = subprocess.run([sys.executable, "-c", STEP, mode], capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


def main() -> None:
    """Two processes of each kind in turn; medians and quartiles."""
    seconds: dict[str, list[float]] = {"kept": [], "returned": []}
    for _ in range(2):
        for mode, found in seconds.items():
            found += steps(mode)
    for mode, found in seconds.items():
        low, median, high = statistics.quantiles(found, n=4)
        print(f"freed memory {mode:9} {median:.2f} s a step (quartiles {low:.2f} to {high:.2f})")
    print(f"ratio {statistics.median(seconds['kept']) / statistics.median(seconds['returned']):.2f}")
    print(f"{platform.machine()}, torch {torch.__version__}, {platform.libc_ver()[0]} {platform.libc_ver()[1]}")


if __name__ == "__main__":
    main()

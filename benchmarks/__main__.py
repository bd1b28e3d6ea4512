"""The short set: each question in a process of its own, then one table. Run: python -m benchmarks [--size long]."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import RESULTS, ROOT, write
from benchmarks.origin import commit
from benchmarks.table import table

SCRIPTS = sorted(file.stem for file in Path(__file__).parent.glob("*.py") if "\nQUESTION = " in file.read_text("utf-8"))
# settings of the allocator, a figure, reasons, what takes many GB, several processes or a browser: not what one repeats
ASIDE = (
    "kept_memory",
    "sharded_loss",
    "data_parallel",
    "million_classes",
    "growth",
    "profiles",
    "piece_memory",
    "report_page",
)
QUESTIONS = [name for name in SCRIPTS if name not in ASIDE]


def main() -> int:
    """Run, merge, print; 1 if a script failed. A target that is not met is a finding, not a failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--size", choices=("tiny", "short", "long"), default="short")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    chosen = parser.parse_args()
    size = chosen.size
    found, failed, start = [], [], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for question in QUESTIONS:
            began = time.perf_counter()
            # by way of a folder of its own, so that the table shows this run and no rows of former ones
            words = [sys.executable, "-m", f"benchmarks.{question}", "--size", size, "--results", folder]
            done = subprocess.run(words, cwd=ROOT, stdout=subprocess.DEVNULL)
            print(f"{question}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
            if done.returncode != 0:
                failed.append(question)
                continue
            rows = json.loads((Path(folder) / f"{question}.json").read_text(encoding="utf-8"))
            for row in rows:
                row["origin"]["command"] = f"python -m benchmarks.{question} --size {size}"
            write(rows, chosen.results)
            found += rows
    print(table(found))
    aims = [aim for row in found for aim in row["targets"]]
    print(f"\n{sum(aim['met'] for aim in aims)} of {len(aims)} targets met, {time.perf_counter() - start:.0f} s")
    if commit().endswith("+"):
        print(f"the checkout differs from its commit: rows are marked {commit()}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

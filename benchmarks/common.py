"""What every benchmark shares: interleaved rounds, medians and quartiles, rows that say where they come from.

A script answers one question, is run as ``python -m benchmarks.NAME`` from the root of the checkout, and has
this form::

    def rows(size: str) -> list[Row]:             # size: "tiny" (smoke tests), "short", "long"
        samples = interleaved({"ours": timed(step), "bare": timed(loop)}, rounds=9)
        return [row(QUESTION, {"batch": 32}, samples, reference="bare", targets=[Target("ours", 1.05, of="bare")])]

    if __name__ == "__main__":
        main(QUESTION, rows, __doc__)

**A row** is one case (one set of shapes), with everything that ran side by side in it::

    {"question": "loss_time",
     "case": {"B": 180, "D": 512, "C": 11318, "K": 1},       what identifies the row within its file
     "unit": "s",                                            "s", "MiB" or "images/s"
     "rounds": 9,
     "reference": "three products",                          the subject that ratios are taken to, or null
     "subjects": {"polyanchor class": {"median": .., "q1": .., "q3": .., "ratio": ..}, ..},
     "targets": [{"subject": .., "at_most": 1.0, "of": "three products", "value": 0.9, "met": true}, ..],
     "notes": ["..."],                                       what a reader of the numbers has to know
     "origin": {"command": .., "commit": .., "processor": .., "torch": .., ..}}

``ratio`` is the median over rounds of subject / reference within the round, so that a machine that slows down for a
while changes both; it is left out where the reference took nothing (a small case can fit into memory that was freed
before, and then shows 0 MiB). A target of ``of: null`` is in the row's unit. ``commit`` ends in ``+`` where the code
was changed since. :func:`write` replaces the rows of the same case in ``benchmarks/results/QUESTION.json`` and keeps
the others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.origin import origin

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
THREADS = 2  # the targets are stated for two cores, so that is what runs on a larger machine too

Row = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """``subject`` is at most ``limit`` times ``of`` (in the row's unit where ``of`` is None), or at least that."""

    subject: str
    limit: float
    of: str | None = None
    least: bool = False


def timed(step: Callable[[], object]) -> Callable[[], float]:
    """The step as something that returns the seconds it took."""

    def seconds() -> float:
        start = time.perf_counter()
        step()
        return time.perf_counter() - start

    return seconds


def interleaved(
    subjects: Mapping[str, Callable[[], float]], *, rounds: int, warm_up: int = 1, seconds: float = float("inf")
) -> dict[str, list[float]]:
    """One number from each subject in every round, each round beginning with another one.

    Args:
        subjects: name -> a function that returns its number (seconds from :func:`timed`, MiB, ...).
        rounds: at most so many rounds.
        warm_up: rounds before, which do not count.
        seconds: no round begins after so many, once five are done.
    """
    names = list(subjects)
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(warm_up):
        for name in names:
            subjects[name]()
    start = time.perf_counter()
    for turn in range(rounds):
        if turn >= 5 and time.perf_counter() - start > seconds:
            break
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(subjects[name]())
    return found


def row(
    question: str,
    case: Mapping[str, Any],
    samples: Mapping[str, Sequence[float]],
    *,
    unit: str = "s",
    reference: str | None = None,
    targets: Sequence[Target] = (),
    notes: Sequence[str] = (),
) -> Row:
    """A row as the head of this file describes it; targets of subjects that did not run are left out."""
    subjects = {}
    for name, values in samples.items():
        low, middle, high = quartiles(values)
        subjects[name] = {"median": middle, "q1": low, "q3": high}
        if reference is not None and min(samples[reference]) > 0:
            subjects[name]["ratio"] = paired(samples[name], samples[reference])
    return {
        "question": question,
        "case": dict(case),
        "unit": unit,
        "rounds": max(len(values) for values in samples.values()),
        "reference": reference,
        "subjects": subjects,
        "targets": [judged(target, samples) for target in targets if target.subject in samples],
        "notes": list(notes),
        "origin": origin(),
    }


def judged(target: Target, samples: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The target with the value that was found and whether that meets it."""
    ours = samples[target.subject]
    value = quartiles(ours)[1] if target.of is None else paired(ours, samples[target.of])
    met = value >= target.limit if target.least else value <= target.limit
    bound = "at_least" if target.least else "at_most"
    return {"subject": target.subject, bound: target.limit, "of": target.of, "value": value, "met": met}


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile, to four digits; a single value is all three."""
    if len(values) == 1:
        return digits(values[0]), digits(values[0]), digits(values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return digits(low), digits(middle), digits(high)


def paired(ours: Sequence[float], others: Sequence[float]) -> float:
    """Median of the ratios within a round; of the medians where the two did not run equally often."""
    if len(ours) != len(others):
        return digits(statistics.median(ours) / statistics.median(others))
    return digits(statistics.median(mine / theirs for mine, theirs in zip(ours, others, strict=True)))


def digits(value: float) -> float:
    """Four significant digits: more would be noise in the files."""
    return float(f"{value:.4g}")


def write(rows: Sequence[Row], folder: Path = RESULTS) -> None:
    """Put the rows into ``folder/QUESTION.json``, in place of those of the same case."""
    for question in dict.fromkeys(found["question"] for found in rows):
        file = folder / f"{question}.json"
        new = [found for found in rows if found["question"] == question]
        old = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
        fresh = {json.dumps(found["case"]): found for found in new}
        merged = [fresh.pop(json.dumps(found["case"]), found) for found in old] + list(fresh.values())
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")


def child(module: str, *arguments: object) -> Any:
    """What ``python -m module arguments`` prints as JSON on its last line, from a fresh process."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    # this checkout's own package, wherever another one may be installed from
    places = [str(ROOT), str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(question: str, rows: Callable[[str], list[Row]], about: str | None, argv: Sequence[str] | None = None) -> None:
    """The command line of a script: run it, write its rows, print its table."""
    from benchmarks.table import table

    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{question}", description=(about or "").split("\n")[0])
    parser.add_argument("--size", choices=("tiny", "short", "long"), default="short")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    chosen = parser.parse_args(argv)
    if chosen.size == "tiny" and chosen.results == RESULTS:
        parser.error("--size tiny is for tests: give --results a folder of its own")
    use_threads()
    found = rows(chosen.size)
    write(found, chosen.results)
    print(table(found))


def use_threads(count: int = THREADS) -> None:
    """So many threads here and in the processes started from here."""
    import torch

    torch.set_num_threads(count)
    os.environ["OMP_NUM_THREADS"] = str(count)

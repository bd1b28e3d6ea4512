"""The result of a comparison as files and as the cells of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from polyanchor._io import replacing
from polyanchor.compare.plan import ComparisonFolder
from polyanchor.compare.significance import ComparisonResult, MethodResult
from polyanchor.runs.before import FORMS
from polyanchor.runs.folder import write_json
from polyanchor.stats.intervals import Paired
from polyanchor.training.summary import environment
from polyanchor.types import Interval


def write(result: ComparisonResult, out: Path) -> None:
    """Write ``table.json``, which has the plan and the environment too, and ``table.md``."""
    plan = ComparisonFolder(out).read_plan()
    write_json(out / "table.json", asdict(result) | {"plan": plan, "environment": environment()})
    with replacing(out / "table.md") as unfinished:
        unfinished.write_text(as_markdown(result), encoding="utf-8")


def shown_measures(result: ComparisonResult) -> list[str]:
    """The measures to print: recall@1, nDCG at the largest cut-off, MAP@R and the one that chose the epochs."""
    names = list(result.lines[0].means)
    deepest = max((name for name in names if name.startswith("ndcg@")), key=lambda name: int(name[5:]))
    return list(dict.fromkeys(["recall@1" if "recall@1" in names else names[0], deepest, "map@r", result.monitor]))


def as_markdown(result: ComparisonResult) -> str:
    """The whole table, a row for each method."""
    shown = shown_measures(result)
    head = ["method", "runs", *shown, "s/run", f"{result.monitor} less {result.reference}"]
    head += ["p seeds", "p queries", "p classes"]
    rows = [[*measures_of(line, shown), *tests_of(line, result)[1:]] for line in result.lines]
    rows += [[*cells, "", "", "", ""] for cells in before_rows(result, shown)]
    align = ["---", *["---:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, align, *rows))


def before_rows(result: ComparisonResult, shown: Sequence[str]) -> list[list[str]]:
    """A row for each form of the features before training, with as many cells as :func:`measures_of` gives."""
    return [
        [f"before training: {FORMS.get(form, form)}", "", *(_plain(means.get(name, math.nan)) for name in shown), ""]
        for form, means in result.before.items()
    ]


def measures_of(line: MethodResult, shown: Sequence[str]) -> list[str]:
    """Label, runs, measures, seconds."""
    runs = str(line.runs) + (f" ({line.failed} failed)" if line.failed else "")
    return [line.label, runs, *(_pm(line.means[name]) for name in shown), f"{line.seconds:.0f}"]


def tests_of(line: MethodResult, result: ComparisonResult) -> list[str]:
    """Label, difference to the reference in the selecting measure, three p-values; empty for the reference itself."""
    test = line.tests.get(result.monitor)
    if test is None:
        return [line.label, "", "", "", ""]
    values = [shown_p(part) for part in (test.seeds, test.queries, test.classes)]
    return [line.label, f"{test.seeds.difference.mean:+.4f}", *values]


def _plain(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _pm(mean: Interval) -> str:
    half = mean.high - mean.mean
    return f"{mean.mean:.3f}" + ("" if math.isnan(half) else f" ± {half:.3f}")


def shown_p(test: Paired) -> str:
    """A p-value, or the bound on it where the test could not give a smaller one.

    Example:
        >>> none = Interval(0.1, 0.05, 0.15, 40)
        >>> shown_p(Paired(none, 0.0013999, resolution=0.0013999)), shown_p(Paired(none, 0.0204))
        ('<= 0.0014', '0.020')
    """
    if math.isnan(test.p):
        return "-"
    if test.is_bound:
        return f"<= {_rounded_up(test.p)}"
    return "< 0.001" if test.p < 0.001 else f"{test.p:.3f}"


def _rounded_up(bound: float) -> str:
    """To two digits, as 0.0000301 to 0.000031; rounded down it would claim more than is known."""
    places = 1 - math.floor(math.log10(bound))
    return f"{math.ceil(round(bound * 10**places, 6)) / 10**places:.{places}f}"

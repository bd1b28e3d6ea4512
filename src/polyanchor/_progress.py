"""The progress bar of all long work: on stderr, with rate and time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from polyanchor._optional import load

Advance = Callable[..., None]


@contextmanager
def progress(description: str, *, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """A progress bar around a block; yields ``advance(n)``, or ``advance(n, note=...)``.

    ``unit`` is the plural name of the units ("images"); ``done`` units of an earlier run do not count in the rate.
    """
    bars = load("rich.progress", "train")
    console = load("rich.console", "train").Console(stderr=True)
    text, rate = bars.TextColumn, _rate_column(bars, unit, done)
    columns = [text("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn(), text(unit), rate]
    columns += [bars.TimeElapsedColumn(), text("left"), bars.TimeRemainingColumn(), text("{task.fields[note]}")]
    with bars.Progress(*columns, console=console, disable=not (console.is_terminal and _is_first_rank())) as bar:
        task = bar.add_task(description, total=total, completed=done, note="")

        def advance(count: int, *, note: str | None = None) -> None:
            bar.update(task, advance=count, **({} if note is None else {"note": note}))

        yield advance


def _is_first_rank() -> bool:
    """Whether this process is rank 0."""
    torch = sys.modules.get("torch")  # not imported just for a bar
    group = None if torch is None or not torch.distributed.is_available() else torch.distributed
    return group is None or not group.is_initialized() or group.get_rank() == 0


def _rate_column(bars: object, unit: str, done: int) -> object:
    text = load("rich.text", "train").Text

    class Rate(bars.ProgressColumn):  # type: ignore[name-defined, misc]  # rich is optional
        def render(self, task: object) -> object:
            elapsed = getattr(task, "elapsed", None) or 0
            count = getattr(task, "completed", 0) - done
            return text(f"{count / elapsed:.1f} {unit}/s" if elapsed > 0 and count > 0 else f"- {unit}/s")

    return Rate()

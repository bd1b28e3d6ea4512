"""One progress bar for all long work: on stderr, with rate and time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from polyanchor import _optional as _extras

Advance = Callable[..., None]


@contextmanager
def progress(description: str, *, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """A bar that lives as long as the context; call what it yields as ``advance(n)`` or ``advance(n, note=...)``.

    Args:
        description: what is being done.
        total: how many units there are.
        unit: what is counted, in the plural ("images").
        done: units that an earlier run has done already; they do not count in the rate.

    Example:
        >>> with progress("counting", total=3, unit="items") as advance:
        ...     for _ in range(3):
        ...         advance(1)
    """
    bars = _extras.load("rich.progress", "train")
    console = _extras.load("rich.console", "train").Console(stderr=True)
    text, rate = bars.TextColumn, _rate_column(bars, unit, done)
    columns = [text("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn(), text(unit), rate]
    columns += [
        bars.TimeElapsedColumn(),
        text("left"),
        bars.TimeRemainingColumn(),
        text("{task.fields[note]}"),
    ]
    with bars.Progress(*columns, console=console, disable=not (console.is_terminal and _speaks())) as shown:
        task = shown.add_task(description, total=total, completed=done, note="")

        def advance(count: int, *, note: str | None = None) -> None:
            shown.update(task, advance=count, **({} if note is None else {"note": note}))

        yield advance


def _speaks() -> bool:
    """Of several processes that work together the first alone shows anything."""
    torch = sys.modules.get("torch")  # not imported for the sake of a bar
    group = None if torch is None or not torch.distributed.is_available() else torch.distributed
    return group is None or not group.is_initialized() or group.get_rank() == 0


def _rate_column(bars: object, unit: str, done: int) -> object:
    text = _extras.load("rich.text", "train").Text

    class Rate(bars.ProgressColumn):  # type: ignore[name-defined, misc]  # rich is loaded late
        def render(self, task: object) -> object:
            elapsed = getattr(task, "elapsed", None) or 0
            count = getattr(task, "completed", 0) - done
            return text(f"{count / elapsed:.1f} {unit}/s" if elapsed > 0 and count > 0 else f"- {unit}/s")

    return Rate()

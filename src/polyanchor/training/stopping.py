"""Signals as a request to stop a run so that it can be resumed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from polyanchor.types import Announce

# Ctrl-C; `timeout`, `docker stop` and schedulers; a terminal that closes; SLURM before the time is over
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))


class Interrupted(Exception):  # noqa: N818  (not an error: it was requested)
    """A stop was requested; a checkpoint has been written."""


class StopRequest:
    """Takes Ctrl-C, or a signal that ends programs, as a request: the current step is finished and saved first.

    A second Ctrl-C stops at once. Of the other signals only the first counts, since ``timeout`` sends its own twice.

    Args:
        announce: receives a line that confirms the request.

    Attributes:
        made: whether a stop was requested.
        signal: the signal that requested it; None if none did.
    """

    def __init__(self, announce: Announce = lambda line: None) -> None:
        self.announce = announce
        self.made = False
        self.signal: int | None = None

    @property
    def exit_code(self) -> int:
        """Exit code of a program that was stopped: 1 after Ctrl-C, 128 + number after another signal, as in shells.

        Example:
            >>> stop = StopRequest()
            >>> stop.signal = signal.SIGTERM
            >>> stop.exit_code
            143
        """
        return 1 if self.signal in (None, signal.SIGINT) else 128 + int(self.signal or 0)

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Handle the signals in the context; an ignored one (SIGHUP under ``nohup``) stays ignored."""
        before = self.take()
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def take(self) -> dict[int, Callable[..., object] | int | None]:
        """Handle the signals from now on; returns the handlers before."""
        before: dict[int, Callable[..., object] | int | None] = {}
        if threading.current_thread() is not threading.main_thread():  # Python delivers signals to the main thread
            return before
        for number in _SIGNALS:
            if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, self._handle)
        return before

    def _handle(self, number: int, frame: object) -> None:
        if self.made:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.made, self.signal = True, number
        with suppress(RuntimeError):  # Python refuses to write while it has interrupted the writing of a line
            self.announce("stopping after the step under way; Ctrl-C again stops at once")

"""A request to end a run so that it can go on later."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# Ctrl-C; `timeout`, `docker stop` and schedulers; a terminal that closes; SLURM before the time is over
_ASK = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))


class Interrupted(Exception):  # noqa: N818  (not an error: it was asked for)
    """The user asked to stop; a checkpoint has been written."""


class StopRequest:
    """Ctrl-C, or a signal that ends programs, as a request: the step under way is finished and saved first.

    A second Ctrl-C stops at once; of the other signals only the first counts, as ``timeout`` sends its own twice.

    Args:
        announce: is told that the request was heard.

    Attributes:
        made: whether somebody asked.
        signal: the signal that asked; None if none did.
    """

    def __init__(self, announce: Callable[[str], None] = lambda line: None) -> None:
        self.announce = announce
        self.made = False
        self.signal: int | None = None

    @property
    def exit_code(self) -> int:
        """What a program ends with that was asked to stop: 1 after Ctrl-C, as shells have it after other signals.

        Example:
            >>> stop = StopRequest()
            >>> stop.signal = signal.SIGTERM
            >>> stop.exit_code
            143
        """
        return 1 if self.signal in (None, signal.SIGINT) else 128 + int(self.signal or 0)

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Take the signals while the context lasts; what is ignored (SIGHUP under ``nohup``) stays ignored."""
        before = self.take()
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def take(self) -> dict[int, Callable[..., object] | int | None]:
        """Hear the signals from now on; returns who heard them before."""
        heard: dict[int, Callable[..., object] | int | None] = {}
        if threading.current_thread() is not threading.main_thread():  # signals come to the main thread alone
            return heard
        for number in _ASK:
            if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                heard[number] = signal.signal(number, self._ask)
        return heard

    def _ask(self, number: int, frame: object) -> None:
        if self.made:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.made, self.signal = True, number
        with suppress(RuntimeError):  # Python lets nobody write while the line that was interrupted is written
            self.announce("stopping after the step under way; Ctrl-C again stops at once")

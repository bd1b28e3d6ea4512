"""A request to end a run so that it can go on later."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Interrupted(Exception):  # noqa: N818  (not an error: it was asked for)
    """The user asked to stop; a checkpoint has been written."""


class StopRequest:
    """Ctrl-C as a request: the step under way is finished and saved first. A second Ctrl-C stops at once.

    Args:
        announce: is told that the request was heard.
    """

    def __init__(self, announce: Callable[[str], None] = lambda line: None) -> None:
        self.announce = announce
        self.made = False

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Take SIGINT while the context lasts."""

        def ask(number: int, frame: object) -> None:
            if self.made:
                raise KeyboardInterrupt
            self.made = True
            with suppress(RuntimeError):  # Python lets nobody write while the line that was interrupted is written
                self.announce("stopping after the step under way; Ctrl-C again stops at once")

        if threading.current_thread() is not threading.main_thread():  # signals come to the main thread alone
            yield self
            return
        before = signal.signal(signal.SIGINT, ask)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before)

"""Value checks on an accelerator that never make a training step wait.

The device writes its findings about a batch (are it and its loss finite, lowest and highest label) to pinned host
memory in its own stream. Later calls test, without waiting, whether the copy has arrived, and raise its errors.

Nothing is checked where a step is recorded and replayed without Python: while a CUDA graph is captured (querying an
event would abort it), in code that torch.compile traces, and in function transforms.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._kernels import transformed


class Ticket(Protocol):
    """The part of :class:`torch.Event` that is used."""

    def query(self) -> bool:
        """Whether the work recorded before it is done."""

    def synchronize(self) -> None:
        """Wait until done."""


def _event(device: torch.device) -> Ticket:
    event = torch.Event(device)
    event.record(torch.accelerator.current_stream(device))
    return event


def _recorded() -> bool:
    return torch.compiler.is_compiling() or _check.capturing()


class AsyncChecks:
    """Batches whose checks are still pending on the device."""

    def __init__(self, ticket: Callable[[torch.device], Ticket] = _event) -> None:
        self._ticket = ticket
        self._pending: deque[tuple[int, int, Tensor, Ticket]] = deque()
        self._calls = 0

    def enqueue(self, embeddings: Tensor, labels: Tensor, classes: int, loss: Tensor) -> None:
        """Start the checks of a batch and its loss; returns at once."""
        if _recorded() or transformed(embeddings, labels):
            return
        bad = ~torch.stack((embeddings.detach().isfinite().all(), loss.detach().isfinite()))
        findings = torch.cat((bad, torch.stack(labels.long().aminmax())))
        host = torch.empty(4, dtype=torch.int64, pin_memory=embeddings.device.type == "cuda")
        host.copy_(findings, non_blocking=True)
        self._calls += 1
        self._pending.append((self._calls, classes, host, self._ticket(embeddings.device)))

    def poll(self, *, wait: bool = False) -> None:
        """Raise the errors of finished checks; with ``wait``, wait for all of them. Does nothing during a capture.

        Raises:
            ValueError: an earlier batch held a label out of range or an embedding that was not finite, or its loss
                was not finite because of the proxies.
        """
        while self._pending and not _recorded():
            call, classes, host, ticket = self._pending[0]
            if wait:
                ticket.synchronize()
            elif not ticket.query():
                return
            self._pending.popleft()
            infinite, lost, low, high = host.tolist()
            where = f" (call {call} of this loss, {self._calls - call} before this one)"
            if low < 0 or high >= classes:
                raise InputError(_check.class_range_message(low, high, classes) + where)
            if infinite:
                raise _check.NotFiniteError(
                    "embeddings must be finite, got NaN or infinity; look at the network's output and the "
                    "learning rate" + where
                )
            if lost:
                raise _check.NotFiniteError(_check.LOST + where)

    def __deepcopy__(self, memo: object) -> AsyncChecks:
        """A copied module starts with nothing pending: events belong to the original's stream."""
        return AsyncChecks(self._ticket)

    def __reduce__(self) -> tuple[type[AsyncChecks], tuple[()]]:
        """A pickled module starts with nothing pending."""
        return AsyncChecks, ()

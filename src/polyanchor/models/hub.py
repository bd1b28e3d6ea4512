"""Fetching from the Hugging Face hub, or from another server, without waiting for one that does not answer."""

from __future__ import annotations

import queue
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants

PATIENCE = 6.0
"""Seconds until a server is taken not to answer."""


@contextmanager
def at_once() -> Iterator[None]:
    """Within it the hub answers, or what is not in its cache is missing at once.

    Left to itself, the hub's client asks for each of several files six times, with growing pauses: a minute and more.
    """
    before = constants.HF_HUB_OFFLINE
    if not before:
        constants.HF_HUB_OFFLINE = not answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def answers(address: str) -> bool:
    """Whether a server answers, be it with an error, within :data:`PATIENCE`, looking up its name included.

    Example:
        >>> answers("http://127.0.0.1:9")
        False
    """
    found: queue.Queue[bool] = queue.Queue()
    threading.Thread(target=lambda: found.put(_answers(address)), daemon=True).start()
    try:
        return found.get(timeout=PATIENCE)
    except queue.Empty:
        return False


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # it is there; the client has certificates of its own
    except OSError:
        return False
    return True

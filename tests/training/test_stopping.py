"""A request to stop comes as a signal, at any moment."""

import io
import signal

import pytest

from polyanchor.training.stopping import StopRequest


def test_a_request_is_heard_once_and_a_second_one_stops_at_once():
    heard = []
    with StopRequest(heard.append).listening() as stop:
        assert not stop.made
        signal.raise_signal(signal.SIGINT)
        assert stop.made and len(heard) == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_request_in_the_middle_of_a_written_line_is_a_request_too():
    class Raw(io.RawIOBase):
        """Ctrl-C comes while it writes."""

        def writable(self):
            return True

        def write(self, content):
            if not stop.made:
                signal.raise_signal(signal.SIGINT)
            return len(content)

    stream = io.BufferedWriter(Raw())

    def announce(line):
        stream.write(line.encode())
        stream.flush()

    with StopRequest(announce).listening() as stop:
        announce("epoch 2")
    assert stop.made

"""The bar on a terminal: count, unit, rate and time left; silence where there is none."""

import io

import rich.console

from polyanchor._progress import progress


def test_on_a_terminal(monkeypatch):
    stream, console = io.StringIO(), rich.console.Console
    monkeypatch.setattr(rich.console, "Console", lambda **_: console(file=stream, force_terminal=True, width=120))
    with progress("embedding", total=4, unit="images") as advance:
        for _ in range(4):
            advance(1, note="loss 1.5")
    shown = stream.getvalue()
    for part in ("embedding", "4/4", "images/s", "left", "loss 1.5"):
        assert part in shown


def test_in_a_log(capsys):
    with progress("embedding", total=4, unit="images") as advance:
        advance(4)
    assert capsys.readouterr().err == ""

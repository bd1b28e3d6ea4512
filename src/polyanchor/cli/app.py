"""The commands, and what becomes of an error."""

from __future__ import annotations

import io
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from polyanchor import __version__
from polyanchor._errors import InputError
from polyanchor._io import JobFailedError, no_room, user_path
from polyanchor._optional import MissingExtraError
from polyanchor.cli import analyze, compare, data, evaluate, export, index, report, train
from polyanchor.cli import evaluate as embed
from polyanchor.cli import index as search
from polyanchor.cli import train as demo

app = typer.Typer(
    name="polyanchor",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Deep metric learning: train an embedding, measure how well it retrieves, put it to use."""


app.command("demo", short_help="The main job, on handwritten digits.")(demo.demo)
app.add_typer(data.app, name="data")
app.command("train", short_help="Train an embedding and measure it.")(train.train)
app.command("evaluate", short_help="Measure how well a model or vectors retrieve.")(evaluate.evaluate)
app.command("embed", short_help="Write the vectors of a data set to a file.")(embed.embed)
app.command("report", short_help="Write a run as one HTML page.")(report.report)
app.command("compare", short_help="Compare losses: equal budgets, several seeds, tests.")(compare.compare)
app.add_typer(analyze.app, name="analyze")
app.command("export", short_help="Write a model for other programs.")(export.export)
app.add_typer(index.app, name="index", short_help="Make an index of images, keep it, measure it.")
app.command("search", short_help="Find the images most similar to one.")(search.search)


@app.command("explore", hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def _explore() -> None:
    raise InputError(
        "there is no polyanchor explore; write the table that embedding-atlas opens with: "
        "polyanchor embed RUN --out x.parquet"
    )


_INTERRUPTED = 130


_HOME = re.compile(r"^((?:--[\w-]+=)?(?:\w+\.\w+=)?)(~(?:[/\\].*)?)$")


def _with_home(word: str) -> str:
    """``~`` as the home folder, also behind an ``=``, where no shell replaces it: the one rule for all paths.

    Example:
        >>> _with_home("--out=~/run") == "--out=" + str(user_path("~/run"))
        True
        >>> _with_home("a~/b")
        'a~/b'
    """
    found = _HOME.match(word)
    return f"{found[1]}{user_path(found[2])}" if found else word


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code says how it ended.

    Bad input (``InputError``, ``OSError``, a missing extra) ends in a message on stderr and exit
    code 2; a job that failed (``JobFailedError``, a full disk) in a message and exit code 1, as does anything else,
    which is a fault of ours. ``--debug``, before or after the command, shows the traceback of all.
    """
    options = list(arguments)
    options = options[: options.index("--")] if "--" in options else options
    debug = "--debug" in options
    rest = [word for word in options if word != "--debug"] + list(arguments[len(options) :])
    if not rest and debug:
        rest = ["--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that the terminal's encoding lacks costs no result
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")
    try:
        code = app(args=[_with_home(word) for word in rest], prog_name="polyanchor", standalone_mode=False)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except Exception as error:  # the last place where an error can become a message
        return _explain(error, debug=debug)
    if code == _INTERRUPTED:  # typer's answer to a Ctrl-C that nobody else heard
        print("polyanchor: stopped", file=sys.stderr)
        return 1
    return code if isinstance(code, int) else 0


def _explain(error: Exception, *, debug: bool) -> int:
    show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
    if show is not None and code is not None:  # typer's own: wrong usage
        show(file=sys.stderr)  # by itself it would write UTF-8 where the stream is ASCII
        return int(code)
    if debug:
        traceback.print_exception(error)
    failed = isinstance(error, JobFailedError) or no_room(error) is not None
    expected = not failed and isinstance(error, (InputError, OSError, MissingExtraError))
    if not getattr(error, "heard", True):  # another process of the same run says it
        return 2 if expected else 1
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"  # the file first, as in all other messages
    if not (expected or failed):
        text = f"{type(error).__name__}: {text} (polyanchor --debug ... shows the traceback)"
    print(f"polyanchor: {text}", file=sys.stderr)
    return 2 if expected else 1

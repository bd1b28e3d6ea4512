"""All commands, and how errors become messages."""

from __future__ import annotations

import io
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from polyanchor import __version__
from polyanchor._errors import InputError
from polyanchor._io import JobFailedError, no_room, user_path
from polyanchor._optional import MissingExtraError
from polyanchor.cli import analyze, compare, data, evaluate, export, index, report, train
from polyanchor.cli._flags import ConfigCommand, refuse_replaced, with_nearest

SECTIONS = {
    "Train": ("demo", "train", "config", "data"),
    "Measure": ("evaluate", "compare", "report", "analyze"),
    "Put to use": ("embed", "export"),
    "Search": ("index", "search"),
}
"""Heading in the help -> its commands."""
_INTERRUPTED = 130
_HOME = re.compile(r"^((?:--[\w.-]+=)?)(~(?:[/\\].*)?)$")


class _Sections(TyperGroup):
    """The help lists the commands under headings."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(map(len, self.commands))
        for heading, names in SECTIONS.items():
            with formatter.section(heading):
                helps = [(name, self.commands[name].get_short_help_str(90)) for name in names]
                formatter.write_dl([(name.ljust(width), text) for name, text in helps])


app = typer.Typer(
    name="polyanchor",
    cls=_Sections,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
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


app.command("demo", short_help="The main job, on handwritten digits.")(train.demo)
app.command("train", cls=ConfigCommand, short_help="Train an embedding and measure it.")(train.train)
app.command("config", cls=ConfigCommand, short_help="Print the configuration, with comments.")(train.config)
app.add_typer(data.app, name="data")
app.command("evaluate", cls=ConfigCommand, short_help="Measure how well a model or vectors retrieve.")(
    evaluate.evaluate
)
app.command("embed", cls=ConfigCommand, short_help="Write the vectors of a data set to a file.")(evaluate.embed)
app.command("report", cls=ConfigCommand, short_help="Write a run as one HTML page.")(report.report)
app.command("compare", cls=ConfigCommand, short_help="Compare losses: equal budgets, several seeds, tests.")(
    compare.compare
)
app.add_typer(analyze.app, name="analyze")
app.command("export", short_help="Write a model for other programs.")(export.export)
app.add_typer(index.app, name="index", short_help="Make an index of images, keep it, search it, measure it.")
app.command("search", short_help="Find the images most similar to one: index search.")(index.search)


@app.command("explore", hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def _explore() -> None:
    raise InputError(
        "there is no polyanchor explore; write the table that embedding-atlas opens with: "
        "polyanchor embed RUN --out x.parquet"
    )


def _with_home(word: str) -> str:
    """A leading ``~`` as the home folder, also behind an ``=``, where no shell replaces it.

    Example:
        >>> _with_home("--out=~/run") == "--out=" + str(user_path("~/run"))
        True
        >>> _with_home("a~/b")
        'a~/b'
    """
    match = _HOME.match(word)
    return f"{match[1]}{user_path(match[2])}" if match else word


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code.

    Bad input (``InputError``, ``OSError``, a missing extra) ends in a message on stderr and exit code 2. A failed job
    (``JobFailedError``, a full disk) ends in a message and exit code 1, and so does any other error, which is a bug.
    ``--debug``, before or after the command, shows the traceback.
    """
    options = list(arguments)
    options = options[: options.index("--")] if "--" in options else options
    debug = "--debug" in options
    rest = [word for word in options if word != "--debug"] + list(arguments[len(options) :])
    if not rest and debug:
        rest = ["--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # letters that the encoding lacks are replaced
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")
    try:
        refuse_replaced(options)
        code = app(args=[_with_home(word) for word in rest], prog_name="polyanchor", standalone_mode=False)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except Exception as error:  # each becomes a message
        return _explain(error, debug=debug)
    if code == _INTERRUPTED:  # typer's exit code of a Ctrl-C that no command handled
        print("polyanchor: stopped", file=sys.stderr)
        return 1
    return code if isinstance(code, int) else 0


def _explain(error: Exception, *, debug: bool) -> int:
    show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
    if show is not None and code is not None:  # typer's own: wrong usage
        if isinstance(message := getattr(error, "message", None), str):
            error.message = with_nearest(message)  # type: ignore[attr-defined]  # read just before
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

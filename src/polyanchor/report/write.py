"""From a run to its page."""

from __future__ import annotations

import base64
import gzip
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._io import replacing, user_path
from polyanchor._optional import load
from polyanchor.report.content import class_labels, gather
from polyanchor.report.data import ReportData, open_run
from polyanchor.report.thumbnails import BUDGET, Sprites, sprites, text
from polyanchor.types import Announce, Interval

_ASSETS = Path(__file__).parent / "assets"
_SCRIPTS = "figures.js", "map.js"


def render(content: Mapping[str, Any], sprites: Sprites | None = None) -> str:
    """Fill the template.

    All texts are escaped where they stand in HTML and in JSON. Beyond that the page carries a policy by which a browser
    runs the page's own scripts, known by their SHA-256, and no others, and opens no connection.

    Args:
        content: what the template shows; ``figures`` is what its scripts draw.
        sprites: the map's thumbnails, of its items in order; the proxies, which have none, come last.
    """
    jinja = load("jinja2", "report")
    surroundings = jinja.Environment(
        loader=jinja.FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    surroundings.filters |= {"number": number, "interval": interval, "percent": percent}
    trusted = load("markupsafe", "report").Markup
    scripts = "\n".join((_ASSETS / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    library, packed = plotly()
    rendered: str = surroundings.get_template("page.html").render(
        content,
        style=trusted((_ASSETS / "page.css").read_text(encoding="utf-8")),
        script=trusted(scripts),
        plotly=packed,
        sprites=[] if sprites is None else [text(file) for file in sprites.files],
        side=0 if sprites is None else sprites.side,
        policy=_policy(scripts, library),
    )
    return rendered


@cache
def plotly() -> tuple[str, str]:
    """plotly.js as its package ships it, and packed for the page.

    The package has one bundle, of 4.8 MB; packed it takes 2 MB, and browsers unpack it in a tenth of a second. plotly's
    smaller bundles would have to come from a network, or be kept here.

    Returns:
        The source, and its gzip in base64.
    """
    source: str = load("plotly.offline", "report").get_plotlyjs()
    return source, text(gzip.compress(source.encode(), compresslevel=9, mtime=0))


def _policy(*scripts: str) -> str:
    """A Content-Security-Policy: nothing from anywhere, but pictures in the page and the scripts given."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    known = " ".join(f"'sha256-{digest}'" for digest in digests)
    # plotly compiles its WebGL programs to functions, and sets styles
    return (
        f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {known} 'unsafe-eval'; "
        "base-uri 'none'; form-action 'none'"
    )


def number(value: float | None, digits: int = 4) -> str:
    """A measure, to four digits after the point.

    Example:
        >>> number(0.25), number(float("nan"))
        ('0.2500', 'undefined')
    """
    return "undefined" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def interval(found: Interval | None) -> str:
    """Both ends.

    Example:
        >>> interval(Interval(0.5, 0.25, 0.75, 9)), interval(Interval(0.5, float("nan"), float("nan"), 1))
        ('0.250 to 0.750', 'n = 1')
    """
    if found is None:
        return "undefined"
    return f"n = {found.n}" if math.isnan(found.low) else f"{found.low:.3f} to {found.high:.3f}"


def percent(share: float) -> str:
    """A share as people write it.

    Example:
        >>> percent(0.125), percent(0.004)
        ('12 %', '0.4 %')
    """
    return f"{share:.0%}".replace("%", " %") if share >= 0.0095 or share == 0 else f"{share:.1%}".replace("%", " %")


LARGEST = 14_500_000
"""Bytes of a page, unless it is asked for so much else that the smallest thumbnails do not fit in."""


@dataclass(frozen=True)
class Written:
    """A page.

    Attributes:
        path: the file.
        size: of it in bytes.
        queries: number of queries.
        points: items and proxies in the map.
        thumbnail: side of the map's thumbnails in pixels; 0 for vectors.
        measures: measure -> mean, and its intervals over queries and over classes as (low, high).
        notes: what the page says to mind.
    """

    path: Path
    size: int
    queries: int
    points: int
    thumbnail: int
    measures: dict[str, dict[str, Any]]
    notes: tuple[str, ...]


def write_report(
    run: Path,
    out: Path,
    *,
    split: str = "test",
    classes: Sequence[str] = (),
    queries: int = 8,
    centres: int | None = None,
    points: int = 10_000,
    tsne: bool = True,
    settings: tuple[str, ...] = (),
    announce: Announce = lambda line: None,
) -> Written:
    """Write the page of a finished run; ``out`` is replaced in one step.

    Args:
        run: its folder.
        out: the file.
        split: ``"test"``, ``"validation"`` or ``"train"``: whose items are the queries.
        classes: names or ids of classes to show, of the queries' or of those that trained.
        queries: worst queries, and typical ones, to show.
        centres: classes whose local centres are shown, if none of ``classes`` trained; 0: no training items; None: 4.
        points: items in the map, at most.
        tsne: whether the map has t-SNE beside the principal axes.
        settings: changes to the run's ``data``, ``images``, ``batches`` and ``run`` keys.
        announce: receives a line before each longer step.

    Raises:
        FileNotFoundError: no run, or one that is not finished.
        ValueError: a split or class that there is not, an image that cannot be read, a number out of range, or
            ``centres`` where there are none or ``classes`` name them.
        MissingExtraError: plotly is not installed.
    """
    _check.at_least_0("queries", queries)
    asked, centres = centres, 4 if centres is None else centres
    _check.at_least_0("centres", centres)
    _check.count("points", points)
    out = user_path(out)
    if out.is_dir():
        raise IsADirectoryError(f"--out must be a file, got the folder {out}; take {out / 'report.html'}")
    load("plotly.offline", "report"), load("jinja2", "report")  # before the work rather than after it
    opened = open_run(run, split=split, settings=settings, training=bool(centres or classes))
    chosen = chosen_classes(opened, classes)
    if asked and opened.proxies is None:
        raise InputError(f"--centres: the loss {opened.trained.config.loss.name} has no proxies; leave it out")
    if asked and set(chosen) & set(opened.trained.classes.tolist()):
        raise InputError("--centres: the classes of --class that trained are shown, and no others; leave it out")
    found = gather(opened, chosen, queries=queries, centres=centres, points=points, tsne=tsne, announce=announce)
    announce("writing the page")
    made = None
    if found.cells:  # what the rest of the page leaves them
        room = (LARGEST - len(render(found.content).encode())) * 3 // 4  # base64 takes four bytes for three
        made = sprites(found.cells, budget=min(BUDGET, room))
    page = render(found.content, made)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as unfinished:
        unfinished.write_text(page, encoding="utf-8", newline="\n")
    return Written(
        path=out,
        size=out.stat().st_size,
        queries=opened.report.queries,
        points=found.points,
        thumbnail=0 if made is None else made.side,
        measures={
            one.name: {
                "mean": one.over_queries.mean,
                "over_queries": (one.over_queries.low, one.over_queries.high),
                "over_classes": (one.over_classes.low, one.over_classes.high),
            }
            for one in found.measures
            if one.over_queries is not None and one.over_classes is not None
        },
        notes=opened.notes,
    )


def chosen_classes(opened: ReportData, names: Sequence[str]) -> list[int]:
    """Class ids by name or number.

    Raises:
        ValueError: there is no such class; the nearest name is said.
    """
    sides = [rows for rows in (opened.queries, opened.training) if rows is not None]
    numbers = torch.cat([rows.items.classes for rows in sides]).unique().tolist()
    known = {name: number for number, name in reversed(class_labels(opened, numbers).items())}
    known |= {str(number): number for number in numbers if str(number) not in known}
    for name in names:
        if name not in known:
            some = ", ".join(repr(opened.class_name(number)) for number in numbers[:3])
            near = _check.nearest(name, list(known)) or f"; the first of {len(numbers):,} are {some}"
            raise InputError(
                f"--class must be a class of the {opened.split} or of the training items, got {name!r}{near}"
            )
    return list(dict.fromkeys(known[name] for name in names))

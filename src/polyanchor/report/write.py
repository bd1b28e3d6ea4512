"""Write the report page of a finished run."""

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
from polyanchor.report.content import gather
from polyanchor.report.data import ReportData, open_run
from polyanchor.report.figures import class_labels
from polyanchor.report.thumbnails import BUDGET, Sprites, sprites, text
from polyanchor.types import Announce, Interval

_ASSETS = Path(__file__).parent / "assets"
LARGEST = 14_500_000
"""Bytes of a page; exceeded where the rest of the page is so large that even the smallest thumbnails do not fit."""


def render(content: Mapping[str, Any], sprites: Sprites | None = None) -> str:
    """Fill the template.

    All texts are escaped, in HTML and in JSON. The page also carries a content security policy: a browser runs only
    the page's own scripts, known by their SHA-256, and opens no connection.

    Args:
        content: for the template; ``figures`` is for its script.
        sprites: thumbnails of the map's items in order; the proxies, which have none, come last.
    """
    jinja = load("jinja2", "train")
    environment = jinja.Environment(
        loader=jinja.FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "interval": interval, "percent": percent}
    trusted = load("markupsafe", "report").Markup
    script = (_ASSETS / "page.js").read_text(encoding="utf-8")
    library, packed = plotly()
    rendered: str = environment.get_template("page.html").render(
        content,
        style=trusted((_ASSETS / "page.css").read_text(encoding="utf-8")),
        script=trusted(script),
        plotly=packed,
        sprites=[] if sprites is None else [text(file) for file in sprites.files],
        side=0 if sprites is None else sprites.side,
        policy=_policy(script, library),
    )
    return rendered


@cache
def plotly() -> tuple[str, str]:
    """plotly.js as its package ships it, and compressed for the page.

    The package has one bundle of 4.8 MB; compressed it takes 2 MB, and browsers unpack it in a tenth of a second.
    plotly's smaller bundles would have to be downloaded, or kept here.

    Returns:
        The source, and its gzip in base64.
    """
    source: str = load("plotly.offline", "report").get_plotlyjs()
    return source, text(gzip.compress(source.encode(), compresslevel=9, mtime=0))


def _policy(*scripts: str) -> str:
    """A Content-Security-Policy that allows the images of the page and these scripts, and no connection."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    # plotly compiles its WebGL programs to functions, and sets styles
    return (
        f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {allowed} 'unsafe-eval'; "
        "base-uri 'none'; form-action 'none'"
    )


def number(value: float | None, digits: int = 4) -> str:
    """A measure with four decimals.

    Example:
        >>> number(0.25), number(float("nan"))
        ('0.2500', 'undefined')
    """
    return "undefined" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def interval(ends: Interval | None) -> str:
    """Both ends of an interval, or the size of a sample that has none.

    Example:
        >>> interval(Interval(0.5, 0.25, 0.75, 9)), interval(Interval(0.5, float("nan"), float("nan"), 1))
        ('0.250 to 0.750', 'n = 1')
    """
    if ends is None:
        return "undefined"
    return f"n = {ends.n}" if math.isnan(ends.low) else f"{ends.low:.3f} to {ends.high:.3f}"


def percent(share: float) -> str:
    """A share in percent.

    Example:
        >>> percent(0.125), percent(0.004)
        ('12 %', '0.4 %')
    """
    return f"{100 * share:.{0 if share >= 0.0095 or share == 0 else 1}f} %"


@dataclass(frozen=True)
class Written:
    """A page.

    Attributes:
        path: the file.
        size: in bytes.
        queries: number of queries.
        points: items and proxies in the map.
        thumbnail: side of the map's thumbnails in pixels; 0 for vectors.
        measures: measure -> mean, and its intervals over queries and over classes as (low, high).
        notes: the warnings at the head of the page.
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
        queries: number of worst queries, and of typical ones, to show.
        centres: classes whose local centres are shown, if none of ``classes`` trained; 0: no training items; None: 4.
        points: items in the map, at most.
        tsne: whether the map has t-SNE beside the principal axes.
        settings: changes to the run's ``data``, ``images``, ``batches`` and ``run`` keys.
        announce: receives a line before each longer step.

    Raises:
        FileNotFoundError: no run, or one that is not finished.
        ValueError: an unknown split or class, an image that cannot be read, a number out of range, or ``centres``
            for a loss without proxies or beside ``classes`` that trained.
        MissingExtraError: plotly is not installed.
    """
    _check.at_least_0("queries", queries)
    shown_centres = 4 if centres is None else centres
    _check.at_least_0("centres", shown_centres)
    _check.count("points", points)
    out = user_path(out)
    if out.is_dir():
        raise IsADirectoryError(f"--out must be a file, got the folder {out}; take {out / 'report.html'}")
    load("plotly.offline", "report"), load("jinja2", "train")  # an error before the work
    data = open_run(run, split=split, settings=settings, training=bool(shown_centres or classes))
    chosen = chosen_classes(data, classes)
    if centres and data.proxies is None:
        raise InputError(f"--centres: the loss {data.trained.config.loss.name} has no proxies; leave it out")
    if centres and set(chosen) & set(data.trained.classes.tolist()):
        raise InputError("--centres: the classes of --class that trained are shown, and no others; leave it out")
    gathered = gather(data, chosen, queries=queries, centres=shown_centres, points=points, tsne=tsne, announce=announce)
    announce("writing the page")
    sheets = None
    if gathered.cells:
        room = (LARGEST - len(render(gathered.content).encode())) * 3 // 4  # base64 takes four bytes for three
        sheets = sprites(gathered.cells, budget=min(BUDGET, room))
    page = render(gathered.content, sheets)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as unfinished:
        unfinished.write_text(page, encoding="utf-8", newline="\n")
    return Written(
        path=out,
        size=out.stat().st_size,
        queries=data.report.queries,
        points=gathered.points,
        thumbnail=0 if sheets is None else sheets.side,
        measures={
            measure.name: {
                "mean": measure.over_queries.mean,
                "over_queries": (measure.over_queries.low, measure.over_queries.high),
                "over_classes": (measure.over_classes.low, measure.over_classes.high),
            }
            for measure in gathered.measures
            if measure.over_queries is not None and measure.over_classes is not None
        },
        notes=data.notes,
    )


def chosen_classes(data: ReportData, names: Sequence[str]) -> list[int]:
    """Class ids by name or number.

    Raises:
        ValueError: an unknown class; the message names the nearest.
    """
    parts = [rows for rows in (data.queries, data.training) if rows is not None]
    class_ids = torch.cat([rows.items.classes for rows in parts]).unique().tolist()
    by_name = {name: class_id for class_id, name in reversed(class_labels(data, class_ids).items())}
    by_name = {str(class_id): class_id for class_id in class_ids} | by_name
    for name in names:
        if name not in by_name:
            first = ", ".join(repr(data.class_name(class_id)) for class_id in class_ids[:3])
            near = _check.nearest(name, list(by_name)) or f"; the first of {len(class_ids):,} are {first}"
            raise InputError(
                f"--class must be a class of the {data.split} or of the training items, got {name!r}{near}"
            )
    return list(dict.fromkeys(by_name[name] for name in names))

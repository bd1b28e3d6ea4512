"""The page itself: a template, its style, its scripts and plotly.js in one file that asks nothing of any network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from polyanchor._extras import load
from polyanchor.report.pictures import Sprites, text
from polyanchor.types import Interval

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

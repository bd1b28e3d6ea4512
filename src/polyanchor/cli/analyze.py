"""``polyanchor analyze``: looks into runs and comparisons."""

from __future__ import annotations

import typer

from polyanchor.cli import analyze_gradients, analyze_measures, analyze_proxies

app = typer.Typer(
    help="Look into runs: gradients of a loss, local centres of the classes, stability of the measures.",
    no_args_is_help=True,
)

app.command("gradients", short_help="What pulls and pushes the items of a run.")(analyze_gradients.gradients)
app.command("proxies", short_help="The local centres of the classes of a run.")(analyze_proxies.proxies)
app.command("measures", short_help="How steady the measures of a comparison are.")(analyze_measures.measures)

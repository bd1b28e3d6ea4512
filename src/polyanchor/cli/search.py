"""``polyanchor search``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyanchor.cli._index import BREADTH, INDEX, JSON, MODEL, STORE, from_here

if TYPE_CHECKING:
    from polyanchor.index.values import Hit


def search(
    place: INDEX,
    queries: Annotated[list[str], typer.Argument(metavar="IMAGE", help="Image files, or one file of vectors.")],
    k: Annotated[int, typer.Option("--k", min=1, help="Hits for each query.")] = 10,
    picture: Annotated[Path | None, typer.Option(help="Write a picture of the hits, .png or .jpg.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare every item, whatever kind of index it is.")] = False,
    breadth: BREADTH = None,
    model: MODEL = None,
    store: STORE = "",
    as_json: JSON = False,
) -> None:
    """Find the images most similar to one.

    Example: polyanchor search photos.index query.jpg --k 10 --picture hits.png

    A query that is in the index is found too, first. The score is the cosine: 1 for the same image.
    """
    from dataclasses import asdict

    from polyanchor.cli._output import note, print_json
    from polyanchor.index.index import Index
    from polyanchor.index.query import search_files

    opened = Index.open(place, model=model, store=store)
    names, found = search_files(opened, queries, k, exact=exact, breadth=breadth)
    if picture is not None:
        from polyanchor.index.picture import write_picture

        write_picture(names, found, picture)
        note(f"the hits are shown in {picture}")
    if as_json:
        answers = [
            {"query": name, "hits": [{"rank": rank, **asdict(hit)} for rank, hit in enumerate(hits, 1)]}
            for name, hits in zip(names, found, strict=True)
        ]
        print_json({"index": place, "items": len(opened), "k": k, "queries": answers})
    else:
        for name, hits in zip(names, found, strict=True):
            _print(name, hits)
    if len(opened) < k:
        note(f"{place} holds {len(opened)} items, fewer than --k {k}")


def _print(query: str, hits: Sequence[Hit]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from polyanchor.cli._output import print_whole

    Console().print(Text(query), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for column in ("rank", "score", "id"):
        table.add_column(column, justify="right")
    for column in ("label", "path"):
        table.add_column(column)
    for rank, hit in enumerate(hits, 1):
        cells = str(rank), f"{hit.score:.4f}", str(hit.id), hit.label or "", from_here(hit.path)
        table.add_row(*map(Text, cells))
    print_whole(table)

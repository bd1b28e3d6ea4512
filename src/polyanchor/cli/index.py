"""``polyanchor index``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyanchor._errors import InputError
from polyanchor.cli._common import (
    INDEX,
    JSON,
    MODEL,
    ON_BAD,
    PARTIAL,
    ROOT,
    SEARCH_EFFORT,
    STORE,
    changed,
    from_here,
    refuse_unused,
    require_images,
    say_skipped,
)

if TYPE_CHECKING:
    from polyanchor.index.index import Index
    from polyanchor.index.ingest import Reading
    from polyanchor.index.types import Hit


app = typer.Typer(invoke_without_command=True)

DATA = "Sources as in `polyanchor train` (folder:photos), image files, or files of vectors."


@app.callback()
def index(
    context: typer.Context,
    check: Annotated[
        str, typer.Option("--check", metavar="INDEX", help="The same as: polyanchor index check INDEX.")
    ] = "",
) -> None:
    """Make an index of images that can be searched, put more in, take some out, measure what it misses.

    Example: polyanchor index build runs/photos folder:photos --out photos.index

    polyanchor search looks things up.
    """
    if check and context.invoked_subcommand is None:
        measure(check)
    elif check:
        raise InputError(f"--check takes no further command, got {context.invoked_subcommand}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def build(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", exists=True, help="Folder of a run or a saved embedder; or a file of vectors, as they are."
        ),
    ],
    out: Annotated[str, typer.Option(metavar="INDEX", help="Folder to make, new or empty; the collection's name.")],
    data: Annotated[
        list[str] | None, typer.Argument(metavar="DATA", help=f"{DATA} Without any, those of the run.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Of the run's own data: all (the default), test, gallery, train or validation.")
    ] = "",
    kind: Annotated[str, typer.Option(help="exact, hnsw or ivf; on a Qdrant server exact or hnsw.")] = "exact",
    store: STORE = "",
    root: ROOT = None,
    allow_partial: PARTIAL = False,
    on_bad_image: ON_BAD = "",
    as_json: JSON = False,
) -> None:
    """Embed images and make an index of them.

    Example: polyanchor index build runs/photos folder:photos --out photos.index

    exact compares a query with every item; hnsw and ivf with some of them, which pays from some ten thousand items on.
    The index appears when all is done; stopped before, nothing is left of it.
    """
    from polyanchor.index.ingest import build as build_index

    if split and (data or target.is_file()):
        raise InputError(f"--split takes a part of the run's own data, and other data are named; got --split {split}")

    named = [str(target), *(data or ())] if target.is_file() else (data or ())
    own = "" if named else on_bad_image
    changed(None, on_bad_image=own, run=target if own and (target / "config.toml").is_file() else None)
    made, skipped = build_index(
        target,
        out,
        data=data or (),
        split=split or "all",
        kind=kind,
        store=store,
        how=_how(named, root, allow_partial, on_bad_image),
    )
    say_skipped(skipped)
    _say(made, as_json=as_json, added=len(made))


@app.command()
def add(
    place: INDEX,
    data: Annotated[list[str], typer.Argument(metavar="DATA", help=DATA)],
    model: MODEL = None,
    store: STORE = "",
    root: ROOT = None,
    allow_partial: PARTIAL = False,
    on_bad_image: ON_BAD = "",
    as_json: JSON = False,
) -> None:
    """Embed more images into an index.

    Example: polyanchor index add photos.index folder:more one-more.jpg

    An image whose path is in the index already takes its old place, with its id. A model that is not the one that the
    index was made with is refused.
    """
    from polyanchor.index.index import Index
    from polyanchor.index.ingest import add as add_data

    opened = Index.open(place, model=model, store=store)
    added, skipped = add_data(opened, data, how=_how(data, root, allow_partial, on_bad_image))
    say_skipped(skipped)
    _say(opened, as_json=as_json, added=added.new, replaced=len(added.ids.unique()) - added.new)


@app.command()
def remove(
    place: INDEX,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH", help="Paths of the items, as a search prints them.")
    ] = None,
    ids: Annotated[list[int] | None, typer.Option("--id", help="Id of an item; may be given again.")] = None,
    store: STORE = "",
    as_json: JSON = False,
) -> None:
    """Take items out of an index, by path or by id.

    Example: polyanchor index remove photos.index photos/cat/1.jpg --id 17

    If one of them is not there, nothing is removed. Ids are never given again.
    """
    from polyanchor.index.index import Index

    if not paths and not ids:
        raise InputError("nothing to remove: name paths, or --id")
    opened = Index.open(place, store=store)
    _say(opened, as_json=as_json, removed=opened.remove(ids=ids or (), paths=paths or ()))


@app.command()
def info(place: INDEX, store: STORE = "", as_json: JSON = False) -> None:
    """Say what an index holds and which model it was made with.

    Example: polyanchor index info photos.index
    """
    from polyanchor.index.index import Index

    _say(Index.open(place, store=store), as_json=as_json)


@app.command("check", short_help="Measure what an approximate index misses.")
def measure(
    place: INDEX,
    k: Annotated[int, typer.Option("--k", min=1, help="Neighbours of each item.")] = 10,
    queries: Annotated[int, typer.Option(min=1, help="Items of the index to search with.")] = 200,
    search_effort: SEARCH_EFFORT = None,
    store: STORE = "",
    as_json: JSON = False,
) -> None:
    """Measure what an approximate index misses: its recall against the exact search, and the time of both.

    Example: polyanchor index check photos.index --k 10

    Items of the index are its queries, one at a time, each left out of its own list.
    """
    from dataclasses import asdict

    from rich.console import Console

    from polyanchor.cli._common import note, print_json
    from polyanchor.index.index import Index
    from polyanchor.index.recall import measure_recall

    opened = Index.open(place, store=store)
    found = measure_recall(opened, k=k, queries=queries, search_effort=search_effort)
    if as_json:
        print_json({"index": place, "kind": opened.about.kind, **asdict(found), "speedup": found.speedup})
        return
    Console().print(
        f"{place}, {opened.about.kind}: recall@{found.k} {found.recall:.4f} over {found.queries} queries; one takes "
        f"{1e3 * found.approximate:.2f} ms, the exact search {1e3 * found.exact:.2f} ms ({found.speedup:.1f} x)",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if opened.about.kind == "exact":
        note("this index compares every item anyway: its recall is 1 by what it is")


def _how(data: Sequence[str], root: Path | None, allow_partial: bool, on_bad_image: str) -> Reading:
    """How the named data are read; an option that is for none of them is an error."""
    from polyanchor.index.ingest import Reading, is_vectors

    refuse_unused(data, root, allow_partial)
    require_images([f"features:{one}" if is_vectors(one) else one for one in data], on_bad_image)
    return Reading(root or Path("data"), allow_partial, on_bad_image or "stop")  # type: ignore[arg-type]  # checked there


def _say(opened: Index, *, as_json: bool, **done: int) -> None:
    """What was done, and what the index is now."""
    from polyanchor.cli._common import note, print_json

    about = opened.about
    said = {"index": opened.name, "items": len(opened), "dim": about.dim, "kind": about.kind}
    if as_json:
        print_json({**said, **done, "model": about.model, "fingerprint": about.fingerprint})
        return
    print(f"{opened.name}: {len(opened):,} items, {about.dim} columns, {about.kind}")
    if not done:
        folder = about.model or "an embedder that lay in no folder"
        made = f"{folder}, fingerprint {about.fingerprint[:12]}" if about.fingerprint else "none, vectors alone"
        print(f"model: {made}")
    for what, count in done.items():
        if count or what != "replaced":
            note(f"{count:,} {what}")


def search(
    place: INDEX,
    queries: Annotated[list[str], typer.Argument(metavar="IMAGE", help="Image files, or one file of vectors.")],
    k: Annotated[int, typer.Option("--k", min=1, help="Hits for each query.")] = 10,
    picture: Annotated[Path | None, typer.Option(help="Write a picture of the hits, .png or .jpg.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare every item, whatever kind of index it is.")] = False,
    search_effort: SEARCH_EFFORT = None,
    model: MODEL = None,
    store: STORE = "",
    as_json: JSON = False,
) -> None:
    """Find the images most similar to one.

    Example: polyanchor search photos.index query.jpg --k 10 --picture hits.png

    A query that is in the index is found too, first. The score is the cosine: 1 for the same image.
    """
    from dataclasses import asdict

    from polyanchor.cli._common import note, print_json
    from polyanchor.index.index import Index
    from polyanchor.index.ingest import search_files

    opened = Index.open(place, model=model, store=store)
    names, found = search_files(opened, queries, k, exact=exact, search_effort=search_effort)
    if picture is not None:
        from polyanchor.index.sheet import write_picture

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

    from polyanchor.cli._common import print_whole

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

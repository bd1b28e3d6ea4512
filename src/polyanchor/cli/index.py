"""``polyanchor index`` and ``search``."""

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
    note,
    note_skipped,
    print_json,
    print_table,
    refuse_unused,
    relative_to_cwd,
    require_images,
)
from polyanchor.datasets.spec import source_spec

if TYPE_CHECKING:
    from polyanchor.index.index import Index
    from polyanchor.index.ingest import Reading
    from polyanchor.index.types import Hit


app = typer.Typer(invoke_without_command=True)

DATA = "Sources as for `polyanchor train` (photos/), image files, or files of vectors."


@app.callback()
def index(
    context: typer.Context,
    check: Annotated[
        str, typer.Option("--check", metavar="INDEX", help="The same as: polyanchor index check INDEX.")
    ] = "",
) -> None:
    """Make an index of images, add to it, remove from it, search it, measure what it misses.

    Example: polyanchor index build runs/photos photos/ --out photos.index

    polyanchor search is the short form of polyanchor index search.
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
    on_bad_image: ON_BAD = None,
    as_json: JSON = False,
) -> None:
    """Embed images and make an index of them.

    Example: polyanchor index build runs/photos photos/ --out photos.index

    exact compares a query with every item; hnsw and ivf with some of them, which pays from some ten thousand items on.
    The index appears when all is done; stopped before, nothing is left of it.
    """
    if split and (data or target.is_file()):
        raise InputError(f"--split takes a part of the run's own data, and other data are named; got --split {split}")
    data = [source_spec(source) for source in data or ()]
    named = [source_spec(str(target)), *data] if target.is_file() else data
    if on_bad_image and not named and (target / "config.toml").is_file():
        from polyanchor.runs.folder import RunFolder

        require_images([RunFolder(target).read_config().data.source], on_bad_image)
    from polyanchor.index.ingest import build as build_index

    index, skipped = build_index(
        target,
        out,
        data=data,
        split=split or "all",
        kind=kind,
        store=store,
        how=_reading(named, root, allow_partial, on_bad_image),
    )
    note_skipped(skipped)
    _print_index(index, as_json=as_json, added=len(index))


@app.command()
def add(
    folder: INDEX,
    data: Annotated[list[str], typer.Argument(metavar="DATA", help=DATA)],
    model: MODEL = None,
    store: STORE = "",
    root: ROOT = None,
    allow_partial: PARTIAL = False,
    on_bad_image: ON_BAD = None,
    as_json: JSON = False,
) -> None:
    """Embed more images into an index.

    Example: polyanchor index add photos.index more/ one-more.jpg

    An image whose path is in the index already takes its old place, with its id. A model that is not the one that the
    index was made with is refused.
    """
    from polyanchor.index.index import Index
    from polyanchor.index.ingest import add as add_data

    data = [source_spec(source) for source in data]
    opened = Index.open(folder, model=model, store=store)
    added, skipped = add_data(opened, data, how=_reading(data, root, allow_partial, on_bad_image))
    note_skipped(skipped)
    _print_index(opened, as_json=as_json, added=added.new, replaced=len(added.ids.unique()) - added.new)


@app.command()
def remove(
    folder: INDEX,
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
    opened = Index.open(folder, store=store)
    _print_index(opened, as_json=as_json, removed=opened.remove(ids=ids or (), paths=paths or ()))


@app.command()
def info(folder: INDEX, store: STORE = "", as_json: JSON = False) -> None:
    """Show an index's contents and the model that built it.

    Example: polyanchor index info photos.index
    """
    from polyanchor.index.index import Index

    _print_index(Index.open(folder, store=store), as_json=as_json)


@app.command("check", short_help="Measure what an approximate index misses.")
def measure(
    folder: INDEX,
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

    from polyanchor.index.index import Index
    from polyanchor.index.recall import measure_recall

    opened = Index.open(folder, store=store)
    measured = measure_recall(opened, k=k, queries=queries, search_effort=search_effort)
    if as_json:
        print_json({"index": folder, "kind": opened.about.kind, **asdict(measured), "speedup": measured.speedup})
        return
    print(
        f"{folder}, {opened.about.kind}: recall@{measured.k} {measured.recall:.4f} over {measured.queries} queries; "
        f"one takes {1e3 * measured.approximate:.2f} ms, the exact search {1e3 * measured.exact:.2f} ms "
        f"({measured.speedup:.1f} x)"
    )
    if opened.about.kind == "exact":
        note("this index compares every item anyway: its recall is 1 by definition")


def _reading(data: Sequence[str], root: Path | None, allow_partial: bool, on_bad_image: str | None) -> Reading:
    """How to read the data; an option that applies to none of them is an error."""
    from polyanchor.index.ingest import Reading

    refuse_unused(data, root, allow_partial)
    require_images(data, on_bad_image)
    return Reading(root or Path("data"), allow_partial, on_bad_image or "stop")  # type: ignore[arg-type]  # a choice


def _print_index(opened: Index, *, as_json: bool, **done: int) -> None:
    """What was done, and what the index is now."""
    about = opened.about
    if as_json:
        shown = {"index": opened.name, "items": len(opened), "dim": about.dim, "kind": about.kind}
        print_json({**shown, **done, "model": about.model, "fingerprint": about.fingerprint})
        return
    print(f"{opened.name}: {len(opened):,} items, {about.dim} columns, {about.kind}")
    if not done:
        folder = about.model or "an embedder that lay in no folder"
        model = f"{folder}, fingerprint {about.fingerprint[:12]}" if about.fingerprint else "none, vectors alone"
        print(f"model: {model}")
    for what, count in done.items():
        if count or what != "replaced":
            note(f"{count:,} {what}")


@app.command()
def search(
    folder: INDEX,
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

    from polyanchor.index.index import Index
    from polyanchor.index.ingest import search_files

    opened = Index.open(folder, model=model, store=store)
    names, answers = search_files(opened, queries, k, exact=exact, search_effort=search_effort)
    if picture is not None:
        from polyanchor.index.sheet import write_picture

        write_picture(names, answers, picture)
        note(f"the hits are shown in {picture}")
    if as_json:
        shown = [
            {"query": name, "hits": [{"rank": rank, **asdict(hit)} for rank, hit in enumerate(hits, 1)]}
            for name, hits in zip(names, answers, strict=True)
        ]
        print_json({"index": folder, "items": len(opened), "k": k, "queries": shown})
    else:
        for name, hits in zip(names, answers, strict=True):
            _print_hits(name, hits)
    if len(opened) < k:
        note(f"{folder} holds {len(opened)} items, fewer than --k {k}")


def _print_hits(query: str, hits: Sequence[Hit]) -> None:
    print(query)
    rows = [
        (str(rank), f"{hit.score:.4f}", str(hit.id), hit.label or "", relative_to_cwd(hit.path))
        for rank, hit in enumerate(hits, 1)
    ]
    print_table(("rank", "score", "id", "label", "path"), rows, align="rrrll", simple=True)

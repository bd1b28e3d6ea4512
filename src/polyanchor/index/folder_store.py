"""An index in a folder.

``index.json``            what the index was made for, and the number of its present files
``vectors.7.safetensors`` vectors of length 1, and rows of zeros up to a multiple of 48; with kind hnsw or ivf and
                          equal rows also ``nodes``, the graph's node of each row
``items.7.parquet``       one row per item: id, path, label
``graph.7.faiss``         with kind hnsw or ivf: the index of faiss
``lock``                  held by the process that writes; others wait

A change writes files of the next number, replaces ``index.json`` in one step, then deletes the old files: killed at
any moment, it leaves the old index or the new one. Processes that have the index open keep its old files.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from polyanchor import _check
from polyanchor._errors import InputError
from polyanchor._io import is_unfinished, reading, remove_unfinished, replacing, save_tensors
from polyanchor._optional import load
from polyanchor.index import faiss as approximate
from polyanchor.index.types import About, Added, Entries, Hit, Rows
from polyanchor.runs.folder import write_json
from polyanchor.search.exact import walk
from polyanchor.search.scores import SearchInputs
from polyanchor.types import Neighbours

KINDS = "exact", *approximate.KINDS
_FORMAT = "polyanchor index 1"
_SUFFIXES = {"vectors": "safetensors", "items": "parquet", "graph": "faiss"}
_NUMBERED = re.compile(r"(vectors|items|graph)\.(\d+)\.(safetensors|parquet|faiss)")
_OURS = re.compile(rf"index\.json|lock|{_NUMBERED.pattern}")


@dataclass(frozen=True)
class _State:
    """The index between two changes."""

    path: Path
    about: About
    number: int
    rows: Rows
    checksum: str
    nodes: Tensor | None  # the graph's node of each row; None where each row is a node

    @cached_property
    def graph(self) -> Any:
        """The index of faiss; read when it is first needed."""
        file = _file(self.path, "graph", self.number)
        return approximate.read(file, self.checksum, size=self.size, dim=self.about.dim)

    @property
    def size(self) -> int:
        """Number of nodes."""
        return len(self.rows) if self.nodes is None else int(self.nodes.max()) + 1


def _file(path: Path, content: str, number: int) -> Path:
    return path / f"{content}.{number}.{_SUFFIXES[content]}"


class FolderStore:
    """An index in a folder, in the state in which it was opened or last changed through this object.

    Args:
        path: the folder.

    Raises:
        FileNotFoundError: there is no index.
        ValueError: it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state = _read(path)

    @classmethod
    def create(cls, path: Path, about: About, entries: Entries) -> FolderStore:
        """Create an index with its first items, in one step.

        Raises:
            FileExistsError: the folder holds an index, or something else.
        """
        cls.require_free(path, about)
        path.mkdir(parents=True, exist_ok=True)
        with FileLock(path / "lock"):
            cls.require_free(path, about)  # no other process has been faster
            rows, _ = Rows.none(about.dim).with_entries(entries)
            _write(path, about, 1, rows, old=None)
        return cls(path)

    @staticmethod
    def require_free(path: Path, about: About) -> None:
        """Raise the errors of :meth:`create`, before anything is computed."""
        _check.one_of("kind", about.kind, KINDS)
        if path.exists() and not path.is_dir():
            raise FileExistsError(f"{path} is a file; an index is a folder: name another")
        if (path / "index.json").exists():
            raise FileExistsError(
                f"{path} is an index already; put more into it with: polyanchor index add {path} DATA, or delete it"
            )
        names = [file.name for file in path.iterdir()] if path.is_dir() else []
        other = [name for name in names if not (_OURS.fullmatch(name) or is_unfinished(name))]
        if other:
            raise FileExistsError(f"{path} holds {min(other)}, so no index can begin there; name another folder")

    @property
    def about(self) -> About:
        """What it was made for."""
        return self._state.about

    def __len__(self) -> int:
        return len(self._state.rows)

    def add(self, entries: Entries) -> Added:
        return self._changed(lambda rows: rows.with_entries(entries))

    def find(self, paths: Sequence[str]) -> list[int | None]:
        return self._state.rows.find(paths)

    def remove(self, ids: Sequence[int]) -> int:
        return self._changed(lambda rows: rows.without(ids))

    def _changed(self, change: Callable[[Rows], tuple[Rows, Any]]) -> Any:
        """Apply a change to the folder's present state, under its lock."""
        with FileLock(self.path / "lock"):
            state = _read(self.path)
            if state.about != self.about:
                raise InputError(f"{self.path} was built anew since it was opened, for another model; open it again")
            rows, result = change(state.rows)
            _write(self.path, state.about, state.number + 1, rows, old=state)
        self._state = _read(self.path)
        return result

    def search(
        self, queries: Tensor, k: int, *, exact: bool = False, search_effort: int | None = None
    ) -> list[list[Hit]]:
        rows = self._state.rows
        if exact or self.about.kind == "exact":
            blocks = [block for _, block, _ in walk(SearchInputs(queries, rows.vectors, None, len(rows)), k)]
            near = Neighbours(torch.cat([block.ids for block in blocks]), torch.cat([block.scores for block in blocks]))
        else:
            state = self._state
            near = approximate.search(state.graph, queries, min(k, state.size), search_effort=search_effort)
            if state.nodes is not None:
                near = approximate.expanded(near, state.nodes, k)
        return rows.hits(near)

    def sample(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        rows = self._state.rows
        chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:count]
        return rows.ids[chosen], rows.vectors[chosen]


def _read(path: Path) -> _State:
    """The index in the folder; the new one, if a writer replaces it meanwhile."""
    while True:
        header = _read_header(path)
        try:
            return _load(path, header)
        except (OSError, ValueError):
            if _read_header(path) == header:
                raise


def _read_header(path: Path) -> dict[str, Any]:
    file = path / "index.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{path} is no index: it has no index.json; make one with: polyanchor index build RUN DATA --out {path}"
        )
    with reading(str(file)):
        header = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise InputError(f"{file} is not what this version of polyanchor wrote: expected format {_FORMAT!r}")
    return header


def _load(path: Path, header: dict[str, Any]) -> _State:
    try:
        about = About(**header["about"])
        number, size, next_id, checksum = (header[key] for key in ("number", "items", "next_id", "graph_checksum"))
    except (KeyError, TypeError) as error:
        raise InputError(f"{path / 'index.json'} is damaged: {error}") from error
    vectors_file, items_file = (_file(path, content, number) for content in ("vectors", "items"))
    sums = header.get("checksums", {})  # older indexes have none
    for file in (vectors_file, items_file):
        if not file.is_file():
            raise InputError(f"{path} is damaged: {file.name} is missing; build the index again")
        if file.name in sums and sums[file.name] != _checksum(file):
            raise InputError(f"{file} is damaged: it is not the file that was written; build the index again")
    with (
        reading(str(vectors_file), load("safetensors", "train").SafetensorError),
        load("safetensors", "train").safe_open(str(vectors_file), framework="pt") as stored,
    ):
        vectors = stored.get_tensor("vectors")  # mapped into memory, not read into it
        nodes = stored.get_tensor("nodes").long() if "nodes" in stored.keys() else None  # noqa: SIM118 (no mapping)
    with reading(str(items_file)):
        table = load("pyarrow.parquet", "train").read_table(items_file)
    rows = Rows(vectors, table, next_id)
    rows.verify(str(path), size=size, dim=about.dim)
    if nodes is not None and len(nodes) != size:
        raise InputError(f"{path} is damaged: its files do not fit each other; build the index again")
    return _State(path, about, number, rows, checksum, nodes)


def _write(path: Path, about: About, number: int, rows: Rows, *, old: _State | None) -> None:
    """Replace the folder's contents. The caller holds the lock."""
    vectors, items, graph = (_file(path, content, number) for content in _SUFFIXES)
    nodes = approximate.nodes_of(rows.unit) if about.kind != "exact" and len(rows) else None
    tensors = {"vectors": rows.vectors}
    if nodes is not None and int(nodes.max()) + 1 < len(rows):
        tensors["nodes"] = nodes.int()
    save_tensors(tensors, vectors)
    remove_unfinished(path)
    with replacing(items) as unfinished:
        load("pyarrow.parquet", "train").write_table(rows.table, unfinished)
    checksum = ""
    if nodes is not None:
        checksum = approximate.write(_graph(about.kind, rows, nodes, old), graph)
    for file in (vectors, items, *([graph] if checksum else [])):
        _flush(file)
    header = {"format": _FORMAT, "number": number, "items": len(rows), "next_id": rows.next_id}
    header["checksums"] = {file.name: _checksum(file) for file in (vectors, items)}
    write_json(path / "index.json", header | {"about": asdict(about), "graph_checksum": checksum})
    for file in list(path.iterdir()):
        numbered = _NUMBERED.fullmatch(file.name)
        if numbered and int(numbered[2]) != number:
            with suppress(OSError):  # where an open file cannot be deleted: the next change will
                file.unlink()


def _graph(kind: str, rows: Rows, nodes: Tensor, old: _State | None) -> Any:
    """The old graph extended by the new rows, if nothing else has changed; else a new one."""
    first = approximate.first_rows(nodes)
    if old is not None and 0 < len(old.rows) <= len(rows) and torch.equal(rows.unit[: len(old.rows)], old.rows.unit):
        before = torch.arange(len(old.rows)) if old.nodes is None else old.nodes
        if torch.equal(nodes[: len(before)], before):
            graph = old.graph
            if approximate.extended(graph, rows.unit[first[old.size :]]):
                return graph
    return approximate.build(rows.unit[first] if len(first) < len(rows) else rows.unit, kind)


def _checksum(file: Path) -> int:
    """CRC-32, at 1 GB/s and more on one core."""
    value = 0
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            value = zlib.crc32(block, value)
    return value


def _flush(file: Path) -> None:
    """Flush to the disk: a power cut must not keep index.json and lose the files that it names."""
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())

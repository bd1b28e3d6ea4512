"""A folder of images with one sub-folder per class, possibly below one folder per part of a split."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from polyanchor._errors import InputError
from polyanchor._optional import load
from polyanchor.datasets.formats._tables import PARTS, encodable, one_word_a_part
from polyanchor.datasets.images import NO_DECODER, ImageFiles
from polyanchor.datasets.items import Items
from polyanchor.datasets.splits import SourceItems

# What systems and programs put beside images. Hidden names (a dot first) are skipped without a note.
_SYSTEM = frozenset(
    {"@eadir", "@recycle", "#recycle", "#snapshot", "__macosx", "__pycache__", "lost+found", "$recycle.bin"}
    | {"system volume information", "thumbs.db", "desktop.ini"}
)
_UNREADABLE = frozenset(  # image formats that Pillow does not read, or only with a plug-in
    {".heic", ".heif", ".avif", ".jxl", ".jxr", ".jp2", ".webp", ".svg", ".exr"}
    | {".raw", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw"}
)


@dataclass
class _Tree:
    """Paths below a folder, relative to it, with ``/`` between folders."""

    images: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)  # links to folders that are read under another path
    system: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # files that are no images
    unreadable: list[str] = field(default_factory=list)  # images in a format that is not read
    irregular: list[str] = field(default_factory=list)  # pipes, sockets, devices, links to nothing


def read(folder: Path, *, unclassed: bool = False) -> SourceItems:
    """List a class-folder tree.

    The class of an image is the path of its folder, relative to ``folder``; folders may be nested
    (``alphabet/character/image.png``). Classes are numbered from 0 in the byte order of their names.
    Hidden files and folders are skipped, as are those of systems (``@eaDir``, ``lost+found`` ...); files that are
    not images are skipped and noted. Links to folders are followed, but no folder is read twice: a link to one
    that is read anyway is left out and noted.

    Folders named ``train``, ``val`` (``valid``, ``validation``), ``test``, ``query`` and ``gallery``, in any case, are
    the parts of a split if there are two or more of them and every image lies below one, at the same depth: a
    class is then the path without that name. ``val`` chooses the best epoch; beside ``train`` alone it is the test part
    instead and chooses nothing. ``train`` alone is no split.

    Args:
        folder: the root of the tree.
        unclassed: allow images outside of class folders, in a class named ``""``.

    Raises:
        NotADirectoryError: there is no such folder.
        InputError: no images, images outside of class folders, parts of a split beside other folders with images, or
            a name that is not UTF-8.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"folder:{folder} is not a folder; give one that holds a folder per class")
    source = f"folder:{folder}"
    tree = _walk(folder)
    encodable([os.fspath(folder), *tree.images], what=source)
    if not tree.images:
        raise InputError(
            f"{source} holds no images that PIL can read; expected class folders with images in them"
            + "".join(f"; {note}" for note in _notes(tree))
        )
    depth, words, notes = _split_level(source, tree.images)
    if depth is not None and any(link.count("/") <= depth for link in tree.again):
        raise InputError(f"{source}: two parts of its split link to the same folder; give each its own images")
    folders = [path.split("/")[:-1] for path in tree.images]
    classes = ["/".join(name for at, name in enumerate(names) if at != depth) for names in folders]
    if "" in classes and not unclassed:
        raise InputError(
            f"{source}: {tree.images[classes.index('')]} lies in no class folder; "
            "put each image into a folder named for its class"
        )
    names = sorted(set(classes), key=os.fsencode)
    ids = {name: number for number, name in enumerate(names)}
    labels = torch.tensor([ids[name] for name in classes])
    parts = None
    if depth is not None and set(words) != {"train"}:
        parts = torch.tensor([words[path[depth].casefold()] for path in folders])
    items = Items(ImageFiles(folder, tree.images), labels, dict(enumerate(names)))
    return SourceItems(source, items, parts, notes + _notes(tree, set(names)))


def _split_level(source: str, images: Sequence[str]) -> tuple[int | None, Mapping[str, int], tuple[str, ...]]:
    """Depth of the folders of a split, part number of each of their names, and notes; None without a split.

    Parts are mostly at the top. Below the classes (``cat/train``) they count too, as ``cat/train`` and ``cat/test``
    would otherwise be two classes, one trained and one tested.
    """
    folders = [path.split("/")[:-1] for path in images]
    for depth in range(max(map(len, folders))):
        at = Counter(path[depth] if len(path) > depth else "" for path in folders)
        known = sorted(name for name in at if name.casefold() in PARTS)
        if known and len(known) == len(at) and (depth == 0 or len(known) > 1):
            return depth, *one_word_a_part(known, what=source)
        if _beside_each_other(folders, depth) and (depth == 0 or len(at) > len(known)):
            strange = next(
                path
                for path, names in zip(images, folders, strict=True)
                if names[depth:][:1] not in [[k] for k in known]
            )
            raise InputError(
                f"{source} holds the parts of a split ({', '.join(known)}) and other images beside them, first "
                f"{strange}; put every image below one of the parts, or rename these folders if they are classes"
            )
        if known and depth == 0:
            return None, {}, (f"the folder {known[0]} is taken for a class, as it stands beside others",)
    return None, {}, ()


def _beside_each_other(folders: Sequence[Sequence[str]], depth: int) -> bool:
    """Whether two parts of a split are in one folder: ``a/train`` and ``a/test``, not ``a/train`` and ``b/test``."""
    inside: dict[tuple[str, ...], set[int]] = {}
    for path in folders:
        if len(path) > depth and path[depth].casefold() in PARTS:
            inside.setdefault(tuple(path[:depth]), set()).add(PARTS[path[depth].casefold()])
    return any(len(parts) > 1 for parts in inside.values())


def _walk(root: Path) -> _Tree:
    """All files below ``root``, images in the byte order of their paths."""
    pil = load("PIL.Image", "train")
    unreadable = {*NO_DECODER, "EPS"}  # EPS needs Ghostscript
    readable = {suffix for suffix, form in pil.registered_extensions().items() if form in pil.OPEN.keys() - unreadable}
    tree, seen, starts = _Tree(), set[tuple[int, int]](), [root]
    for start in starts:  # grows: links come after all real folders, which so keep their own names
        folders = [start]
        for current in folders:  # grows
            status, below = current.stat(), current.relative_to(root).as_posix()
            if (status.st_dev, status.st_ino) in seen:  # a link in a circle, or a second way to the same images
                tree.again.append(below)
                continue
            seen.add((status.st_dev, status.st_ino))
            for entry in sorted(_entries(current), key=lambda entry: os.fsencode(entry.name)):
                path = entry.name if below == "." else f"{below}/{entry.name}"
                if entry.name.casefold() in _SYSTEM:
                    tree.system.append(path)
                elif entry.is_dir():
                    (starts if entry.is_symlink() else folders).append(Path(entry.path))
                else:
                    _sort_in(tree, entry, path, readable)
    tree.images.sort(key=os.fsencode)
    return tree


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _sort_in(tree: _Tree, entry: os.DirEntry[str], path: str, readable: set[str]) -> None:
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122  # a million of them: no Path for each
    if suffix in readable:
        # opening a pipe would block for ever
        (tree.images if entry.is_file() else tree.irregular).append(path)
    else:
        (tree.unreadable if suffix in _UNREADABLE else tree.others).append(path)


def _notes(tree: _Tree, classes: set[str] | None = None) -> tuple[str, ...]:
    notes = [
        f"{len(paths):,} {text}, the first is {_plain(paths[0])}"
        for paths, text in (
            (tree.again, "links left out, as their folders were read already"),
            (tree.system, "folders or files of systems passed over"),
            (tree.irregular, "entries named like images are no regular files (pipes, sockets, links to nothing)"),
        )
        if paths
    ]
    if tree.unreadable:
        notes.append(_about_unreadable(tree, lost=classes is not None))
    if tree.others:
        notes.append(f"{len(tree.others):,} files that are no images passed over ({_suffixes(tree.others)})")
    return tuple(notes)


def _about_unreadable(tree: _Tree, *, lost: bool) -> str:
    note = (
        f"{len(tree.unreadable):,} images in formats that are not read ({_suffixes(tree.unreadable)}), the first is "
        f"{_plain(tree.unreadable[0])}"
    )
    folders = [{path.rpartition("/")[0] for path in paths} for paths in (tree.unreadable, tree.images)]
    empty = sorted(map(_plain, folders[0] - folders[1]))
    if lost and empty:
        note += f"; without them no image is left in {', '.join(empty[:5])}" + (" and others" if len(empty) > 5 else "")
    return f"{note}; convert them to JPEG or PNG"


def _suffixes(paths: Sequence[str]) -> str:
    return ", ".join(sorted({os.path.splitext(path)[1].lower() or "no suffix" for path in paths})[:8])  # noqa: PTH122


def _plain(path: str) -> str:
    """A path as printable text, whatever its bytes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")

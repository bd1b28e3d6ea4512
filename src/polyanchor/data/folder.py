"""A folder of images with one sub-folder per class."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from polyanchor._errors import InputError
from polyanchor._extras import load
from polyanchor.data.columns import PARTS
from polyanchor.data.images import ImageFiles
from polyanchor.data.items import Items
from polyanchor.data.listing import Listing


def read(folder: Path, *, unclassed: bool = False) -> Listing:
    """List a class-folder tree.

    The class of an image is the path of the folder it lies in, relative to ``folder``; folders may be nested
    (``alphabet/character/image.png``). Classes are numbered from 0 in the order of the bytes of their names.
    Hidden files and folders are passed over, and so are files whose suffix PIL does not know. Links to folders
    are followed, but no folder is read twice: a link to one that is read anyway is left out and noted. Sub-folders
    ``train`` and ``test``, or ``train``, ``query`` and ``gallery``, if there are no others, are the split; a
    class is then the path below them.

    Args:
        folder: the root of the tree.
        unclassed: allow images that lie in no class folder; they are of the class named ``""``.

    Raises:
        NotADirectoryError: there is no such folder.
        ValueError: it holds no images, images that lie in no class folder, or one folder as two parts of the
            split.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"folder:{folder} is not a folder; give one that holds a folder per class")
    paths, again = _images(folder)
    if not paths:
        raise InputError(
            f"folder:{folder} holds no images that PIL can read; expected class folders with images in them"
        )
    divided = _is_split(folder)
    if divided and any("/" not in link for link in again):
        raise InputError(f"folder:{folder}: two parts of its split link to the same folder; give each its own images")
    classes = [path.rpartition("/")[0].partition("/")[2] if divided else path.rpartition("/")[0] for path in paths]
    if "" in classes and not unclassed:
        raise InputError(
            f"folder:{folder}: {paths[classes.index('')]} lies in no class folder; "
            "put each image into a folder named for its class"
        )
    names = sorted(set(classes), key=os.fsencode)
    ids = {name: number for number, name in enumerate(names)}
    labels = torch.tensor([ids[name] for name in classes])
    parts = torch.tensor([PARTS[path.partition("/")[0]] for path in paths]) if divided else None
    notes = (
        (f"{len(again):,} links left out, as their folders were read already; the first is {again[0]}",)
        if again
        else ()
    )
    return Listing(f"folder:{folder}", Items(ImageFiles(folder, paths), labels, dict(enumerate(names))), parts, notes)


def _is_split(folder: Path) -> bool:
    inside = {place.name for place in folder.iterdir() if place.is_dir() and not place.name.startswith(".")}
    return inside in ({"train", "test"}, {"train", "query", "gallery"})


def _images(folder: Path) -> tuple[list[str], list[str]]:
    """Paths below ``folder`` of all images, with ``/`` between folders, in the order of their bytes.

    Returns:
        ``(images, again)``; the latter are folders that were read already, under another path.
    """
    pil = load("PIL.Image", "train")
    suffixes = {suffix for suffix, form in pil.registered_extensions().items() if form in pil.OPEN}
    found, again = [], []
    seen = set()
    starts = [folder]
    for start in starts:  # it grows: links come after all real folders, which so keep their own names
        for place, folders, files in os.walk(start):
            status = Path(place).stat()
            below = Path(place).relative_to(folder).as_posix()
            if (status.st_dev, status.st_ino) in seen:  # a link in a circle, or a second way to the same images
                folders.clear()
                again.append(below)
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            starts += [Path(place, name) for name in folders if Path(place, name).is_symlink()]
            for name in files:
                suffix = name[name.rfind(".") :].lower()
                if not name.startswith(".") and suffix in suffixes:
                    found.append(name if below == "." else f"{below}/{name}")
    return sorted(found, key=os.fsencode), again

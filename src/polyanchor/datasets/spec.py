"""The names of data sources, told from bare paths; without torch, so that the command line can ask early."""

from __future__ import annotations

from polyanchor._io import user_path

NAMES = ("digits", "cub200", "cars196", "sop", "inshop", "cifar100")
"""Sources without a path."""
KINDS = ("folder", "csv", "parquet", "features")
"""Sources with a path, written ``KIND:PATH``."""
VECTOR_SUFFIXES = (".safetensors", ".npz", ".npy", ".pt", ".pth")
"""Endings of files of vectors, in any case of letters."""
MAX_PIXELS = 178_956_970
"""Pixels of an image above which it is refused by default; Pillow's own limit."""

_KIND_OF_SUFFIX = {".csv": "csv", ".parquet": "parquet", **dict.fromkeys(VECTOR_SUFFIXES, "features")}


def require_path(source: str) -> None:
    """Require that the file or folder of a source is there, if it has one.

    Raises:
        FileNotFoundError: it is not.

    Example:
        >>> require_path("folder:nowhere")
        Traceback (most recent call last):
        ...
        FileNotFoundError: folder:nowhere: no such file or folder
    """
    kind, colon, path = source.partition(":")
    if colon and kind in KINDS and not user_path(path).exists():
        raise FileNotFoundError(f"{source}: no such file or folder")


def source_spec(source: str) -> str:
    """The full name of a data source: a bare path gets its kind.

    A folder is ``folder:``, or ``parquet:`` if Parquet files lie in it; the kind of a file follows from its suffix.
    Names of data sets, names that have their kind, and what is neither a folder nor of a known suffix stay as they are.

    Args:
        source: a name of :data:`NAMES`, ``KIND:PATH``, or a path.

    Example:
        >>> [source_spec(source) for source in ("photos/", "photos.csv", "clip.npz", "digits", "features:clip.npz")]
        ['folder:photos/', 'csv:photos.csv', 'features:clip.npz', 'digits', 'features:clip.npz']
    """
    kind, colon, _ = source.partition(":")
    if not source or source in NAMES or (colon and kind in KINDS):
        return source
    path = user_path(source)
    if path.is_dir():
        return f"{'parquet' if any(path.glob('*.parquet')) else 'folder'}:{source}"
    if source.endswith("/"):
        return f"folder:{source}"
    kind = _KIND_OF_SUFFIX.get(path.suffix.lower(), "")
    return f"{kind}:{source}" if kind else source

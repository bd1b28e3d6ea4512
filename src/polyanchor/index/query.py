"""Queries from files: images, or vectors."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from polyanchor._errors import InputError
from polyanchor.data.images import BadImageError
from polyanchor.index.data import is_vectors, open_data
from polyanchor.index.index import Index
from polyanchor.index.values import Hit


def search_files(
    index: Index, files: Sequence[str], k: int, *, exact: bool = False, breadth: int | None = None
) -> tuple[list[str], list[list[Hit]]]:
    """Search with image files, or with the rows of one ``.safetensors`` or ``.npz`` file.

    Rows of a file are what the index's model takes, if that takes vectors; otherwise what it gives.

    Args:
        index: to search in.
        files: image files, or one file of vectors.
        k: see :meth:`Index.search`.
        exact: likewise.
        breadth: likewise.

    Returns:
        Names of the queries, and the hits of each.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a query that is no image, vectors of another width, vectors beside images.
    """
    if not any(map(is_vectors, files)):
        try:
            return list(files), index.search(list(files), k, exact=exact, breadth=breadth)
        except BadImageError as error:
            what = str(error).rpartition(". ")[0]  # its advice is for data sets
            raise InputError(f"{what}; a query is an image, or a .safetensors or .npz file of vectors") from error
    if len(files) > 1:
        raise InputError(f"a file of vectors is searched alone, got {len(files)} queries")
    items = open_data(files[0])
    vectors = items.inputs
    assert isinstance(vectors, Tensor)  # what such a file holds
    if index.about.fingerprint and not index.model.takes_images:
        vectors = index.model.embed(vectors)
    names = [items.name(row) for row in range(len(items))]
    return names, index.search(vectors, k, exact=exact, breadth=breadth)

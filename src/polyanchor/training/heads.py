"""Images that cannot even be opened, found before a training and not when it is measured."""

from __future__ import annotations

import torch
from torch import Tensor

from polyanchor._progress import progress
from polyanchor.data.decoding import in_threads
from polyanchor.data.images import BadImageError, Images, look_at_head
from polyanchor.data.items import Split
from polyanchor.distributed.ranks import Ranks

_AT_ONCE = 1024  # images between two steps of the bar


def require_openable(split: Split, ranks: Ranks | None = None) -> None:
    """Open every image of every part, each by one of the processes, and decode none.

    Raises:
        BadImageError: an image is missing, no image or too large; the first is named, on all ranks, and the others are
            counted.
    """
    ranks = ranks or Ranks()
    parts = [part.inputs for part in (split.train, split.test, split.gallery, split.validation) if part is not None]
    # a gallery may be the training part
    places = [(images, row) for images in _distinct(parts) for row in range(len(images))]
    own, found = places[ranks.rank :: ranks.size], list[str]()
    with progress("opening", total=len(own), unit="images") as advance:
        for begin in range(0, len(own), _AT_ONCE):
            block = own[begin : begin + _AT_ONCE]
            found += filter(None, in_threads(_fault, block, torch.get_num_threads()))
            advance(len(block))
    bad = [fault for faults in ranks.of_all(found) for fault in faults]
    if bad:
        more = f". {len(bad) - 1:,} more of {len(places):,} cannot be opened: see polyanchor data verify --images"
        raise BadImageError(bad[0] + more * (len(bad) > 1))


def _distinct(parts: list[Images | Tensor]) -> list[Images]:
    return list({id(images): images for images in parts if not isinstance(images, Tensor)}.values())


def _fault(place: tuple[Images, int]) -> str:
    try:
        look_at_head(*place)
    except BadImageError as error:
        return str(error)
    return ""

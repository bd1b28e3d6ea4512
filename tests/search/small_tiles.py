"""The symmetric search with tiles so small that a few dozen rows fill many of them."""

from contextlib import contextmanager

import pytest

from polyanchor.search import symmetric
from polyanchor.search import threshold_lists as floors


@contextmanager
def small_tiles(*, tile=8, sample=4, hopeless=1.0):
    """Take it for every size and depth; the number of sweeps begun is noted in the list that is given."""
    begun = []

    def noted(*args):
        begun.append(args)
        return sweep(*args)

    sweep = symmetric.sweep
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"TILE": tile, "SMALLEST": 2, "_LONGEST": 0, "sweep": noted}.items():
            patch.setattr(symmetric, name, value)
        patch.setattr(floors, "_SAMPLES", (sample,))
        patch.setattr(floors, "_HOPELESS", hopeless)
        yield begun

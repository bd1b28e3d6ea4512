"""What goes in is checked at the door."""

import pytest

from polyanchor.index.types import About, Entries
from tests.index.vectors import unit


def test_one_text_for_each_vector():
    with pytest.raises(ValueError, match="paths must hold one text or None per vector, 2, got 1"):
        Entries(unit(2), ["a"], [None, None])
    with pytest.raises(ValueError, match="labels must hold"):
        Entries(unit(2), ["a", "b"], "ab")
    with pytest.raises(TypeError, match=r"labels must hold texts or None, got int 3; call str\(\) on it"):
        Entries(unit(2), ["a", "b"], [None, 3])


def test_of_a_path_that_comes_twice_the_last_stays_in_the_place_of_the_first():
    kept = Entries(unit(4), ["a", None, "a", None], ["1", "2", "3", "4"]).last_of_each_path()
    assert (kept.paths, kept.labels) == (["a", None, None], ["3", "2", "4"])
    assert kept.vectors.equal(unit(4)[[2, 1, 3]])


def test_a_width_of_at_least_1():
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        About(0)

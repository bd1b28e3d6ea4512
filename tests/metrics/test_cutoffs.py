import pytest

from polyanchor.metrics.retrieval import cutoffs


def test_forms():
    assert cutoffs(3) == (3,)
    assert cutoffs((8, 1, 8, 2)) == (8, 1, 2)
    assert cutoffs(range(1, 4), largest=3) == (1, 2, 3)


def test_only_ints(subtests):
    for k in (True, 1.0, (1, 2.0), (1, True), "12", None, {1, 2}):
        with subtests.test(repr(k)), pytest.raises(TypeError, match="k must be an integer, got"):
            cutoffs(k)


def test_range():
    for k in (0, -1, (1, 0)):
        with pytest.raises(ValueError, match="k must be at least 1"):
            cutoffs(k)
    with pytest.raises(ValueError, match="at least one cut-off"):
        cutoffs(())
    with pytest.raises(ValueError, match=r"k must be at most 5, .* got 8; leave out the cut-offs above 5"):
        cutoffs((1, 8), largest=5)

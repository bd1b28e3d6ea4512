import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyanchor.search.scores import best


@st.composite
def tables(draw):
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 30))
    few = st.sampled_from([-1.0, -0.0, 0.0, 0.5, 1.0, float("-inf")])
    table = draw(st.lists(st.lists(few, min_size=columns, max_size=columns), min_size=rows, max_size=rows))
    return table, draw(st.integers(1, columns))


@pytest.mark.slow
@given(tables())
@settings(deadline=None, max_examples=300)
def test_matches_a_stable_sort(problem):
    table, k = problem
    found = best(torch.tensor(table), k)
    order = [sorted(range(len(row)), key=lambda i: (-row[i], i))[:k] for row in table]
    assert found.ids.tolist() == order
    assert found.scores.tolist() == [[row[i] for i in ids] for row, ids in zip(table, order, strict=True)]
    assert found.ids.dtype == torch.int64


def test_many_ties_in_long_rows():
    """Long enough for torch.topk to partition instead of sort, which is where its choice is arbitrary."""
    scores = torch.randint(4, (50, 5000), generator=torch.Generator().manual_seed(0)).float()
    for k in (1, 7, 1000, 4999, 5000):
        values, ids = scores.sort(dim=1, descending=True, stable=True)
        found = best(scores, k)
        assert (found.ids == ids[:, :k]).all()
        assert (found.scores == values[:, :k]).all()


def test_all_equal():
    assert best(torch.zeros(2, 3000), 5).ids.tolist() == [[0, 1, 2, 3, 4]] * 2

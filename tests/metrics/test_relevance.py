import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyanchor.metrics.relevance import first_hit, hits_at_rank, relevant_counts

LABELS = st.lists(st.sampled_from([-(2**63), -1, 0, 3, 2**24, 2**24 + 1, 2**63 - 1]), min_size=1, max_size=12)


@given(LABELS, LABELS)
@settings(deadline=None)
def test_counts(labels, gallery):
    got = relevant_counts(torch.tensor(labels), torch.tensor(gallery))
    assert got.tolist() == [gallery.count(label) for label in labels]
    assert relevant_counts(torch.tensor(labels)).tolist() == [labels.count(label) - 1 for label in labels]


@pytest.mark.slow
@given(LABELS, LABELS, st.data())
@settings(deadline=None)
def test_hits(labels, gallery, data):
    row = st.lists(st.integers(0, len(gallery) - 1), min_size=3, max_size=3)
    ids = data.draw(st.lists(row, min_size=len(labels), max_size=len(labels)))
    got = hits_at_rank(torch.tensor(ids), torch.tensor(labels), torch.tensor(gallery))
    assert got.tolist() == [[gallery[i] == label for i in row] for row, label in zip(ids, labels, strict=True)]
    first = [row.index(True) + 1 if True in row else 0 for row in got.tolist()]
    assert first_hit(got).tolist() == first


def test_nothing_behind_the_end_of_a_list_is_a_hit():
    assert hits_at_rank(torch.tensor([[0, -1]]), torch.tensor([5]), torch.tensor([4, 5])).tolist() == [[False, False]]


def test_first_hit_in_a_long_row():
    hits = torch.zeros(3, 5000, dtype=torch.bool)
    hits[0, 4321:] = True
    hits[1, ::7] = True
    assert first_hit(hits).tolist() == [4322, 1, 0]

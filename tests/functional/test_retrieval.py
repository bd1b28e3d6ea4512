import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyanchor.functional import retrieval as measures
from polyanchor.functional.retrieval import fitting, map_at_r, precision_at_k, r_precision, recall_at_k, reciprocal_rank

NAN = pytest.approx(math.nan, nan_ok=True)
ON_HITS = (recall_at_k, precision_at_k, r_precision, map_at_r)


@st.composite
def rankings(draw):
    """A full ranking of each of some queries: every relevant item is in it."""
    size = draw(st.integers(1, 12))
    return draw(st.lists(st.lists(st.booleans(), min_size=size, max_size=size), min_size=1, max_size=5))


def by_hand(name, row, k):
    """The formula, term by term, over a full ranking."""
    r = sum(row)
    if r == 0:
        return math.nan
    if name == "recall_at_k":
        return 1.0 if any(row[:k]) else 0.0
    if name == "precision_at_k":
        return sum(row[:k]) / k
    if name == "r_precision":
        return sum(row[:r]) / r
    return sum(sum(row[: i + 1]) / (i + 1) for i in range(r) if row[i]) / r


@given(rankings(), st.integers(1, 12))
@settings(deadline=None)
@pytest.mark.parametrize("measure", ON_HITS, ids=lambda f: f.__name__)
def test_matches_the_formula(measure, ranking, k):
    k = min(k, len(ranking[0]))
    hits = torch.tensor(ranking)
    n_relevant = hits.sum(dim=1)
    seen = hits if measure in (r_precision, map_at_r) else hits[:, :k]
    got = measure(seen, n_relevant)
    assert got.dtype == torch.float64
    want = [by_hand(measure.__name__, row, k) for row in ranking]
    assert got.tolist() == pytest.approx(want, nan_ok=True, rel=1e-12)


def test_closed_forms():
    hits = torch.tensor([[True, False, False, True, True]])
    three = torch.tensor([3])
    assert recall_at_k(hits[:, 1:3], three).tolist() == [0.0]
    assert precision_at_k(hits, three).tolist() == [3 / 5]
    assert r_precision(hits, three).tolist() == [1 / 3]
    assert map_at_r(hits, three).tolist() == [1 / 3]  # the hits at ranks 4 and 5 lie behind R
    assert map_at_r(hits, torch.tensor([5])).tolist() == pytest.approx([(1 + 2 / 4 + 3 / 5) / 5])


def test_precision_divides_by_k_and_map_by_r():
    one = torch.tensor([[True, False, False, False]])
    assert precision_at_k(one, torch.tensor([1])).tolist() == [0.25]  # not 1: no min(k, R)
    far = torch.zeros(1, 100, dtype=torch.bool)
    far[0, 0] = True
    assert map_at_r(far, torch.tensor([100])).tolist() == [0.01]  # not 1: R counts, not the hits found


def test_what_stands_behind_rank_r_changes_no_bit():
    hits = torch.rand(50, 300, generator=torch.Generator().manual_seed(0)) < 0.3
    n_relevant = hits.sum(dim=1).clamp(max=90)
    hits = hits & (hits.cumsum(dim=1) <= n_relevant[:, None])
    for measure in (map_at_r, r_precision):
        assert torch.equal(measure(hits, n_relevant), measure(hits[:, :90].contiguous(), n_relevant))


def test_reciprocal_rank():
    got = reciprocal_rank(torch.tensor([1, 3, 0, 2**40], dtype=torch.int64))
    assert got.tolist() == [1.0, 1 / 3, NAN, 2.0**-40]
    assert got.dtype == torch.float64


def test_counts_of_any_integer_dtype(subtests):
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        with subtests.test(str(dtype)):
            hits = torch.tensor([[True, True], [False, False]])
            n_relevant = torch.tensor([2, 0], dtype=dtype)
            for measure in ON_HITS:
                assert measure(hits, n_relevant).tolist() == [1.0, NAN]
            assert reciprocal_rank(n_relevant).tolist() == [0.5, NAN]


@pytest.mark.parametrize("measure", [r_precision, map_at_r])
def test_too_narrow_names_the_width_needed(measure):
    with pytest.raises(ValueError, match=r"as wide as the largest n_relevant, 7, got 2; search with k=7"):
        measure(torch.tensor([[True, False]]), torch.tensor([7]))
    beyond = measure(torch.tensor([[True, False, True]]), torch.tensor([2]))
    assert beyond.tolist() == [0.5]  # what stands behind R is not read


@pytest.mark.parametrize("measure", ON_HITS)
def test_refuses(measure):
    hits, one = torch.tensor([[True, False]]), torch.tensor([1])
    with pytest.raises(TypeError, match="hits must be a bool tensor"):
        measure(hits.long(), one)
    with pytest.raises(TypeError, match="got list"):
        measure([[True]], one)
    with pytest.raises(ValueError, match=r"\(Q, k\) with k at least 1, got \(1, 0\)"):
        measure(hits[:, :0], one)
    with pytest.raises(TypeError, match="n_relevant must have an integer dtype"):
        measure(hits, one.float())
    with pytest.raises(ValueError, match=r"n_relevant must have shape \(1,\)"):
        measure(hits, torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="0 or more, got -1"):
        measure(hits, -one)
    with pytest.raises(ValueError, match=r"got 1 for query 0, which has 2 hits"):
        measure(torch.tensor([[True, True]]), one)


@pytest.mark.parametrize("measure", ON_HITS)
def test_checked_once_for_all_measures(measure, monkeypatch):
    hits = torch.rand(40, 12, generator=torch.Generator().manual_seed(0)) < 0.3
    given = hits.sum(dim=1).to(torch.int8)
    want = measure(hits, given)
    n_relevant = fitting(hits, given)
    assert n_relevant.dtype == torch.int64
    monkeypatch.setattr(measures, "fitting", lambda *_: pytest.fail("checked again"))
    assert measure(hits, n_relevant, check=False).tolist() == pytest.approx(want.tolist(), nan_ok=True, abs=0)


def test_reciprocal_rank_refuses():
    with pytest.raises(ValueError, match="first_rank must be 0 or more, got -2"):
        reciprocal_rank(torch.tensor([1, -2]))
    with pytest.raises(TypeError, match="integer dtype"):
        reciprocal_rank(torch.tensor([1.0]))
    with pytest.raises(ValueError, match="shape"):
        reciprocal_rank(torch.tensor([[1]]))


def test_no_queries():
    none = torch.zeros(0, 3, dtype=torch.bool)
    for measure in ON_HITS:
        assert measure(none, torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_shifted_scores_agree_with_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.retrieval", reason="extra: train")
    hits = torch.rand(30, 20, generator=torch.Generator().manual_seed(0)) < 0.2
    n_relevant = hits.sum(dim=1)
    scores = torch.arange(20, 0, -1).float()  # above 0: torchmetrics takes items scored 0 or less as irrelevant
    for row, relevant in zip(hits, n_relevant, strict=True):
        if not relevant:
            continue
        for k in (1, 3, 20):
            hit_rate = functional.retrieval_hit_rate(scores, row, top_k=k)
            precision = functional.retrieval_precision(scores, row, top_k=k)
            assert recall_at_k(row[None, :k], relevant[None]).item() == hit_rate.item()
            assert precision_at_k(row[None, :k], relevant[None]).item() == pytest.approx(precision.item())
        assert r_precision(row[None], relevant[None]).item() == pytest.approx(
            functional.retrieval_r_precision(scores, row).item()
        )
        first = row.nonzero()[0] + 1
        reciprocal = functional.retrieval_reciprocal_rank(scores, row)
        assert reciprocal_rank(first).item() == pytest.approx(reciprocal.item())


def test_every_public_function_says_what_it_computes():
    for name in ("recall_at_k", "precision_at_k", "reciprocal_rank", "r_precision", "map_at_r"):
        assert ".. math::" in getattr(measures, name).__doc__

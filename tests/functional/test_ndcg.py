import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyanchor.functional.ndcg import dcg, ideal_dcg_binary, ideal_gains, ndcg_at_k


def dcg_by_hand(gains):
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


@st.composite
def graded(draw):
    """Gains of classes, how many items of each class there are, and a shuffled full ranking of the items."""
    classes = draw(st.integers(1, 4))
    gains = draw(st.lists(st.sampled_from([0, 0.5, 1, 2, 7]), min_size=classes, max_size=classes))
    counts = draw(st.lists(st.integers(0, 4), min_size=classes, max_size=classes).filter(any))
    items = [gain for gain, count in zip(gains, counts, strict=True) for _ in range(count)]
    return gains, counts, draw(st.permutations(items))


@given(graded(), st.integers(1, 20))
@settings(deadline=None)
def test_graded_matches_sorting_the_whole_list(problem, k):
    gains, counts, ranking = problem
    best = sorted(ranking, reverse=True) + [0] * k
    ideal = ideal_gains(torch.tensor([gains]), torch.tensor(counts), k=k)
    assert ideal.tolist() == [best[:k]]
    seen = (list(ranking) + [0] * k)[:k]
    got = ndcg_at_k(torch.tensor([seen]), dcg(ideal)).item()
    want = dcg_by_hand(best[:k])
    assert got == pytest.approx(dcg_by_hand(seen) / want if want else math.nan, nan_ok=True)
    perfect = ndcg_at_k(ideal, dcg(ideal)).item()
    assert perfect == 1.0 if want else math.isnan(perfect)


@given(st.lists(st.booleans(), min_size=1, max_size=15), st.integers(1, 15))
@settings(deadline=None)
def test_binary_matches_sorting_the_whole_list(ranking, k):
    k = min(k, len(ranking))
    want = dcg_by_hand(sorted(ranking, reverse=True)[:k])
    ideal = ideal_dcg_binary(torch.tensor([sum(ranking)]), k=k)
    assert ideal.item() == pytest.approx(want)
    got = ndcg_at_k(torch.tensor([ranking[:k]]), ideal).item()
    assert got == pytest.approx(dcg_by_hand(ranking[:k]) / want if want else math.nan, nan_ok=True)


def test_closed_forms():
    assert dcg(torch.tensor([[1, 2, 3, 4]])).item() == pytest.approx(1 + 2 / math.log2(3) + 3 / 2 + 4 / math.log2(5))
    gains = torch.tensor([[0.0, 1.0, 0.0]])
    assert ndcg_at_k(gains, torch.tensor([1.0])).item() == pytest.approx(1 / math.log2(3))


def test_the_ideal_is_that_of_the_gallery_not_of_the_list():
    """One hit at rank 1, two more behind rank 5: an ideal of the five items found would say 1."""
    hits = torch.tensor([[True, False, False, False, False]])
    got = ndcg_at_k(hits, ideal_dcg_binary(torch.tensor([3]), k=5)).item()
    assert got == pytest.approx(1 / (1 + 1 / math.log2(3) + 1 / 2))
    assert round(got, 3) == 0.469


def test_a_perfect_list_scores_one_exactly(subtests):
    for k in (1, 2, 5, 8, 100):
        with subtests.test(k=k):
            n_relevant = torch.arange(1, 130)
            hits = torch.arange(k) < n_relevant[:, None]
            assert (ndcg_at_k(hits, ideal_dcg_binary(n_relevant, k=k)) == 1).all()


@pytest.mark.parametrize("high", [2, 5])
@pytest.mark.parametrize("k", [1, 3, 10, 40])
def test_agrees_with_scikit_learn(high, k):
    ndcg_score = pytest.importorskip("sklearn.metrics", reason="extra: train").ndcg_score
    gains = torch.randint(high, (50, 40), generator=torch.Generator().manual_seed(k))
    ideal = dcg(gains.sort(dim=1, descending=True).values[:, :k])
    scores = torch.arange(40, 0, -1).expand(50, 40)  # no ties: scikit-learn would average over them
    got = ndcg_at_k(gains[:, :k], ideal)
    assert got.mean().item() == pytest.approx(ndcg_score(gains.tolist(), scores.tolist(), k=k))


def test_any_dtype_is_summed_in_float64(subtests):
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16):
        with subtests.test(str(dtype)):
            gains = torch.tensor([[1, 0, 1]]).to(dtype)
            got = ndcg_at_k(gains, torch.tensor([2.0], dtype=torch.float16))
            assert got.dtype == torch.float64
            assert got.item() == 0.75


def test_undefined_is_nan():
    got = ndcg_at_k(torch.zeros(2, 3), torch.tensor([0.0, 1.0]))
    assert math.isnan(got[0])
    assert got[1] == 0


def test_an_empty_class_is_worth_nothing_and_more_classes_than_ranks():
    gains = torch.tensor([[9.0, 1.0, 2.0, 3.0]])
    assert ideal_gains(gains, torch.tensor([0, 5, 1, 1]), k=2).tolist() == [[3.0, 2.0]]
    two = torch.tensor([[0, 1, 0, 0], [1, 1, 0, 0]])
    assert ideal_gains(gains.expand(2, 4), two, k=3).tolist() == [[1.0, 0.0, 0.0], [9.0, 1.0, 0.0]]


def test_refuses():
    gains, counts = torch.ones(1, 2), torch.tensor([1, 1])
    with pytest.raises(TypeError, match="torch tensor of shape"):
        dcg([[1.0]])
    with pytest.raises(TypeError, match="complex64"):
        dcg(torch.ones(1, 1, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"\(Q, k\) with k at least 1, got \(3,\)"):
        dcg(torch.ones(3))
    with pytest.raises(ValueError, match=r"ideal_dcg must have shape \(1,\)"):
        ndcg_at_k(gains, torch.ones(2))
    for bad in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="finite and 0 or more"):
            ndcg_at_k(gains, torch.tensor([bad]))
    with pytest.raises(TypeError, match="counts must have an integer dtype"):
        ideal_gains(gains, counts.float(), k=1)
    with pytest.raises(ValueError, match=r"got \(1, 2\) and \(3,\)"):
        ideal_gains(gains, torch.ones(3, dtype=torch.long), k=1)
    with pytest.raises(ValueError, match="finite and 0 or more"):
        ideal_gains(-gains, counts, k=1)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        ideal_gains(gains, counts, k=0)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        ideal_dcg_binary(counts, k=0)
    with pytest.raises(ValueError, match="n_relevant must be 0 or more, got -1"):
        ideal_dcg_binary(-counts, k=1)
    with pytest.raises(TypeError, match="n_relevant must be a torch tensor of integers, got list"):
        ideal_dcg_binary([1, 1], k=1)


def test_k_is_an_integer(subtests):
    for k in (2.5, True, "2"):
        with subtests.test(repr(k)):
            with pytest.raises(TypeError, match=f"k must be an integer, got {type(k).__name__}"):
                ideal_dcg_binary(torch.tensor([1]), k=k)
            with pytest.raises(TypeError, match=f"k must be an integer, got {type(k).__name__}"):
                ideal_gains(torch.ones(1, 2), torch.tensor([1, 1]), k=k)


def test_unchecked_is_the_same():
    hits, ideal = torch.tensor([[False, True], [False, False]]), torch.tensor([1.0, 0.0])
    got = ndcg_at_k(hits, ideal, check=False)
    assert got[0] == ndcg_at_k(hits, ideal)[0]
    assert math.isnan(got[1])
    assert ndcg_at_k(hits, -ideal, check=False)[0] < 0  # not read

import math
from itertools import product

import pytest
import torch

from polyanchor.search.scores import leave_one_out, padded_unit_rows, query_gallery, rows_per_block, score_blocks
from tests.search.live_memory import LiveMemory


def all_scores(task, rows):
    return torch.cat([scores.clone() for _, scores in score_blocks(task, rows)])


def test_padded_unit_rows_of_any_length():
    vectors = torch.tensor([[3.0, 4.0], [3e30, 4e30], [3e-38, 4e-38], [0.0, 0.0]])
    want = torch.tensor([[0.6, 0.8]] * 3 + [[0.0, 0.0]])
    torch.testing.assert_close(padded_unit_rows(vectors)[:4], want)
    assert len(padded_unit_rows(vectors)) == 48
    assert not padded_unit_rows(vectors)[4:].any()
    wide = torch.tensor([[3e200, 4e200], [3e-200, 4e-200]], dtype=torch.float64)
    torch.testing.assert_close(padded_unit_rows(wide)[:2], want[:2].double())


def test_precision(subtests):
    for given, computed in (
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        with subtests.test(str(given)):
            vectors = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).to(given)
            found = all_scores(query_gallery(vectors, vectors), 16)
            assert found.dtype == computed
            unit = torch.nn.functional.normalize(vectors.double(), dim=1)
            torch.testing.assert_close(found.double(), unit @ unit.T, atol=3e-7, rtol=0)


def test_mixed_precision_takes_the_wider():
    queries, gallery = torch.randn(2, 3, dtype=torch.float16), torch.randn(4, 3, dtype=torch.float64)
    assert all_scores(query_gallery(queries, gallery), 16).dtype == torch.float64


@pytest.mark.parametrize("size", [2, 5, 37, 1001])
def test_equal_vectors_get_equal_scores(subtests, size):
    """Without padding this fails in the last columns, where another kernel finishes the product."""
    for dim, dtype in product((3, 64, 513), (torch.float32, torch.float64)):
        with subtests.test(dim=dim, dtype=dtype):
            random = torch.Generator().manual_seed(size + dim)
            one = torch.randn(1, dim, generator=random, dtype=dtype)
            queries = torch.randn(35, dim, generator=random, dtype=dtype)
            scores = all_scores(query_gallery(queries, one.expand(size, dim)), 32)
            assert (scores == scores[:, :1]).all()
            few = all_scores(query_gallery(queries[:3], one.expand(size, dim)), 16)
            assert (few == scores[:3]).all()


def test_the_query_meets_itself_at_minus_infinity():
    vectors = torch.ones(40, 2)
    found = all_scores(leave_one_out(vectors), 16)
    assert found.shape == (40, 40)
    assert (found.diagonal() == -math.inf).all()
    assert found.isneginf().sum() == 40


def test_rows_per_block(subtests):
    for budget in (1, 50_000, 100_000, 10**9):
        with subtests.test(budget=budget):
            task = leave_one_out(torch.eye(96))
            rows = rows_per_block(task, 7, budget)
            assert rows % 16 == 0
            assert rows >= 16
            assert rows == 16 or rows * (96 * (4 + 3) + 8 * (4 + 8 + 24)) <= budget
            assert rows_per_block(task, 95, 10**6) < rows_per_block(task, 7, 10**6)


@pytest.mark.parametrize("given", [torch.float16, torch.float32, torch.float64])
def test_one_copy_is_made(given):
    vectors = torch.ones(4800, 64, dtype=given)
    vectors[7] *= 1e-4 if given == torch.float16 else 1e30
    with LiveMemory() as memory:
        made = padded_unit_rows(vectors)
    assert memory.peak <= vectors.nbytes + made.nbytes + 8 * len(vectors) * 8  # and some numbers per row


def test_autocast_does_not_reach_the_scores():
    vectors = torch.randn(20, 64, generator=torch.Generator().manual_seed(0))
    plain = all_scores(leave_one_out(vectors), 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (all_scores(leave_one_out(vectors), 16) == plain).all()


def test_refuses():
    two = torch.ones(2, 3)
    with pytest.raises(TypeError, match="queries must be a torch tensor"):
        query_gallery([[1.0]], two)
    with pytest.raises(TypeError, match="gallery must be floating"):
        query_gallery(two, two.long())
    with pytest.raises(ValueError, match=r"gallery must have shape \(N, D\)"):
        query_gallery(two, torch.ones(3))
    with pytest.raises(ValueError, match="same width, got 3 and 4"):
        query_gallery(two, torch.ones(2, 4))
    with pytest.raises(ValueError, match="gallery must hold numbers, got a tensor on the meta device"):
        query_gallery(two, two.to("meta"))
    with pytest.raises(ValueError, match="queries must be finite"):
        query_gallery(two * math.nan, two)
    with pytest.raises(ValueError, match="at least 2 rows for leave-one-out, got 1"):
        leave_one_out(two[:1])
    with pytest.raises(ValueError, match="embeddings must be finite, got NaN or infinity in 1 of 2 rows"):
        leave_one_out(torch.tensor([[1.0], [math.inf]]))
    with pytest.raises(ValueError, match="block_bytes must be a finite number above 0, got 0"):
        rows_per_block(leave_one_out(two), 1, 0)

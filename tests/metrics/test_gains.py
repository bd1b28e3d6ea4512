import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyanchor.metrics.relevance import checked_table, gains_at_rank, ideal_dcg_graded

CLASSES = 4
TABLES = st.lists(
    st.lists(st.sampled_from([0, 1, 2, 5]), min_size=CLASSES, max_size=CLASSES),
    min_size=CLASSES,
    max_size=CLASSES,
)
LABELS = st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=10)


def best_dcg(gains, k):
    return sum(g / math.log2(r + 1) for r, g in enumerate(sorted(gains, reverse=True)[:k], start=1))


@given(TABLES, LABELS, LABELS)
@settings(deadline=None)
def test_ideal_is_the_sorted_gallery(table, labels, gallery):
    got = ideal_dcg_graded(torch.tensor(labels), torch.tensor(table), (1, 3, 20), gallery_labels=torch.tensor(gallery))
    alone = ideal_dcg_graded(torch.tensor(labels), torch.tensor(table), (1, 3, 20))
    for k in (1, 3, 20):
        want = [best_dcg([table[label][other] for other in gallery], k) for label in labels]
        assert got[k].tolist() == pytest.approx(want)
        others = [labels[:i] + labels[i + 1 :] for i in range(len(labels))]
        want = [best_dcg([table[q][o] for o in rest], k) for q, rest in zip(labels, others, strict=True)]
        assert alone[k].tolist() == pytest.approx(want)


def test_more_classes_than_are_taken_at_once():
    labels = torch.arange(600).repeat(2)
    table = torch.eye(600) * torch.arange(1, 601)[:, None]
    assert ideal_dcg_graded(labels, table, (1,))[1].tolist() == (labels + 1).tolist()


def test_the_table_is_read_query_first():
    table = torch.tensor([[3, 1], [0, 5]], dtype=torch.int8)
    got = gains_at_rank(torch.tensor([[0, 1]] * 2), torch.tensor([0, 1]), torch.tensor([0, 1]), table)
    assert got.tolist() == [[3.0, 1.0], [0.0, 5.0]]
    assert got.dtype == torch.float64


INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.uint16, torch.uint32, torch.int64)


def test_every_real_dtype_becomes_float64(subtests):
    for dtype in (*INTEGERS, torch.float16, torch.bfloat16):
        with subtests.test(str(dtype)):
            table = checked_table(torch.tensor([[1, 0], [0, 1]]).to(dtype), torch.tensor([0, 1]))
            assert table.dtype == torch.float64
            assert table.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_the_largest_gains_have_finite_sums():
    labels = torch.zeros(3000, dtype=torch.long)
    table = checked_table(torch.full((1, 1), 1e300, dtype=torch.float64), labels)
    assert ideal_dcg_graded(labels, table, (2999,))[2999].isfinite().all()


def test_refuses():
    labels = torch.tensor([0, 1])
    checked_table(torch.eye(2, dtype=torch.bool), labels)
    with pytest.raises(TypeError, match=r"use torch\.as_tensor"):
        checked_table([[1.0]], labels)
    with pytest.raises(ValueError, match=r"shape \(C, C\), .* got \(2, 3\)"):
        checked_table(torch.ones(2, 3), labels)
    for bad in (-1.0, math.nan, math.inf, 1.7e308):
        table = torch.eye(2, dtype=torch.float64)
        table[1, 0] = bad
        with pytest.raises(ValueError, match=r"finite, 0 or more and at most 1e\+300, got .* at \[1, 0\]; .* divide"):
            checked_table(table, labels)
    with pytest.raises(
        ValueError, match=r"in \[0, 2\), got numbers from 2 to 2. Number the classes as the rows of gains"
    ):
        checked_table(torch.eye(2), labels, torch.tensor([2]))
    with pytest.raises(ValueError, match="from -1 to -1"):
        checked_table(torch.eye(2), labels, torch.tensor([-1]))

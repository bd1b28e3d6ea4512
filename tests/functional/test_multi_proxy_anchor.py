"""Witnesses: the formula term by term in Python floats, closed-form gradients, pytorch-metric-learning."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polyanchor.functional import anchor_loss, log1p_sum_exp, multi_proxy_anchor_loss
from tests.covering import covering

ANCHORS = "class", "data", "mixed"
POOLINGS = "softmax", "max", "logsumexp"


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def pooled(scores: list[float], pooling: str, gamma: float) -> float:
    if pooling == "max":
        return max(scores)
    weights = [math.exp(s / gamma) for s in scores]
    if pooling == "logsumexp":
        return gamma * (math.log(sum(weights)) - math.log(len(scores)))
    return sum(w / sum(weights) * s for w, s in zip(weights, scores, strict=True))


def by_hand(x, p, y, *, anchor, alpha, delta, gamma, pooling) -> float:
    """DESIGN's table, cell by cell."""
    rows, classes = range(len(x)), range(len(p))
    s = [[pooled([cosine(x[i], centre) for centre in p[c]], pooling, gamma) for c in classes] for i in rows]

    def pull(i, c):
        return math.exp(-alpha * (s[i][c] - delta))

    def push(i, c):
        return math.exp(alpha * (s[i][c] + delta))

    if anchor == "data":
        positive = sum(math.log(1 + pull(i, y[i])) for i in rows) / len(x)
    else:
        present = sorted(set(y))
        positive = sum(math.log(1 + sum(pull(i, c) for i in rows if y[i] == c)) for c in present) / len(present)
    if anchor == "class":
        negative = sum(math.log(1 + sum(push(i, c) for i in rows if y[i] != c)) for c in classes) / len(p)
    else:
        negative = sum(math.log(1 + sum(push(i, c) for c in classes if y[i] != c)) for i in rows) / len(x)
    return positive + negative


def problem(b: int, c: int, k: int, d: int, *, seed: int = 0, dtype=torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(b, d, generator=generator, dtype=torch.float64).to(dtype)
    p = torch.randn(c, k, d, generator=generator, dtype=torch.float64).to(dtype)
    return x, p, torch.randint(c, (b,), generator=generator)


@given(
    st.integers(1, 7),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(0, 10_000),
    st.sampled_from(ANCHORS),
    st.sampled_from(POOLINGS),
    st.floats(0.5, 64),
    st.floats(-0.2, 0.5),
    st.floats(0.02, 1),
)
@settings(max_examples=150, deadline=None)
def test_matches_the_formula(b, c, k, d, seed, anchor, pooling, alpha, delta, gamma):
    x, p, y = problem(b, c, k, d, seed=seed)
    options = {"anchor": anchor, "pooling": pooling, "alpha": alpha, "delta": delta, "gamma": gamma}
    got = multi_proxy_anchor_loss(x, p, y, **options)
    assert got.item() == pytest.approx(by_hand(x.tolist(), p.tolist(), y.tolist(), **options), rel=1e-9)


@pytest.mark.parametrize(("anchor", "pooling", "k"), covering(ANCHORS, POOLINGS, (1, 2, 5)))
def test_every_member_matches_the_formula(anchor, pooling, k):
    x, p, y = problem(11, 7, k, 3)
    options = {"anchor": anchor, "pooling": pooling, "alpha": 32.0, "delta": 0.1, "gamma": 0.1}
    want = by_hand(x.tolist(), p.tolist(), y.tolist(), **options)
    for impl in ("eager", "fused"):
        assert multi_proxy_anchor_loss(x, p, y, impl=impl, **options).item() == pytest.approx(want, rel=1e-10), impl


def gradient_by_hand(x: Tensor, p: Tensor, y: Tensor, *, anchor: str, alpha: float, delta: float, gamma: float):
    """The closed forms of the documentation for soft assignment, chained to x and p by hand."""
    b, c = len(x), len(p)
    unit_x, unit_p = F.normalize(x, dim=1), F.normalize(p, dim=2)
    s = torch.einsum("id,ckd->ick", unit_x, unit_p)
    w = torch.softmax(s / gamma, dim=2)
    pooled = (w * s).sum(2)
    own = torch.zeros(b, c, dtype=torch.bool)
    own[range(b), y] = True
    h_pull = torch.where(own, torch.exp(-alpha * (pooled - delta)), 0)
    h_push = torch.where(own, 0, torch.exp(alpha * (pooled + delta)))
    if anchor == "data":
        to_s = -alpha / b * h_pull / (1 + h_pull)
    else:
        to_s = -alpha / len(y.unique()) * h_pull / (1 + h_pull.sum(0, keepdim=True))
    if anchor == "class":
        to_s = to_s + alpha / c * h_push / (1 + h_push.sum(0, keepdim=True))
    else:
        to_s = to_s + alpha / b * h_push / (1 + h_push.sum(1, keepdim=True))
    g = to_s[:, :, None] * w * (1 + (s - pooled[:, :, None]) / gamma)  # (B, C, K)
    to_x, to_p = torch.einsum("ick,ckd->id", g, unit_p), torch.einsum("ick,id->ckd", g, unit_x)
    to_x = (to_x - unit_x * (g * s).sum((1, 2))[:, None]) / x.norm(dim=1, keepdim=True)
    to_p = (to_p - unit_p * (g * s).sum(0)[:, :, None]) / p.norm(dim=2, keepdim=True)
    return to_x, to_p


@pytest.mark.parametrize(("anchor", "k"), list(product(ANCHORS, (1, 3))))
def test_closed_form_gradients(anchor, k):
    x, p, y = problem(9, 5, k, 4)
    x.requires_grad_(), p.requires_grad_()
    options = {"anchor": anchor, "alpha": 16.0, "delta": 0.1, "gamma": 0.2}
    want = gradient_by_hand(x.detach(), p.detach(), y, **options)
    for impl in ("eager", "fused"):
        got = torch.autograd.grad(multi_proxy_anchor_loss(x, p, y, impl=impl, **options), (x, p))
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize(("anchor", "pooling"), list(product(ANCHORS, POOLINGS)))
def test_gradcheck(anchor, pooling):
    x, p, y = problem(4, 3, 2, 3)
    options = {"anchor": anchor, "pooling": pooling, "alpha": 8.0}
    x.requires_grad_(), p.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, p: multi_proxy_anchor_loss(x, p, y, **options), (x, p))
    assert torch.autograd.gradgradcheck(lambda x, p: multi_proxy_anchor_loss(x, p, y, **options), (x, p))


@pytest.mark.parametrize("absent", [False, True])
def test_one_proxy_with_class_anchor_is_proxy_anchor_of_another_library(absent):
    losses = pytest.importorskip("pytorch_metric_learning.losses", reason="extra: compare")
    x, p, y = problem(33, 13, 1, 7)
    y = y.clamp(max=5) if absent else y
    other = losses.ProxyAnchorLoss(13, 7, margin=0.1, alpha=32).double()
    other.proxies.data = p[:, 0].clone()
    other.proxies.requires_grad_()
    x1, x2, p = x.clone().requires_grad_(), x.clone().requires_grad_(), p.requires_grad_()
    ours, theirs = multi_proxy_anchor_loss(x1, p, y, anchor="class"), other(x2, y)
    ours.backward(), theirs.backward()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(x1.grad, x2.grad)
    torch.testing.assert_close(p.grad[:, 0], other.proxies.grad)


@pytest.mark.parametrize(("anchor", "pooling"), list(product(ANCHORS, POOLINGS)))
def test_does_not_overflow(anchor, pooling):
    p = torch.tensor([[[1.0, 0.0], [0.8, 0.6]], [[-1.0, 0.0], [0.0, 1.0]]], requires_grad=True)
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    loss = multi_proxy_anchor_loss(x, p, torch.tensor([1, 0]), anchor=anchor, pooling=pooling, alpha=1000.0)
    loss.backward()
    assert loss.isfinite()
    assert loss > 1000
    assert x.grad.isfinite().all()
    assert p.grad.isfinite().all()


@pytest.mark.parametrize(("anchor", "dtype"), list(product(ANCHORS, (torch.float16, torch.bfloat16))))
def test_autocast_computes_in_float32(anchor, dtype):
    x, p, y = problem(6, 4, 3, 8, dtype=torch.float32)
    p.requires_grad_()
    want = torch.autograd.grad(multi_proxy_anchor_loss(x, p, y, anchor=anchor, alpha=1000.0), p)[0]
    with torch.autocast("cpu", dtype=dtype):
        loss = multi_proxy_anchor_loss(x, p, y, anchor=anchor, alpha=1000.0)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(torch.autograd.grad(loss, p)[0], want)


@pytest.mark.parametrize("anchor", ANCHORS)
def test_half_precision_embeddings_lose_no_more_than_their_own_rounding(anchor):
    x, p, y = problem(6, 4, 3, 8, dtype=torch.float32)
    for dtype in (torch.float16, torch.bfloat16):
        got = multi_proxy_anchor_loss(x.to(dtype), p, y, anchor=anchor)
        torch.testing.assert_close(got, multi_proxy_anchor_loss(x.to(dtype).float(), p, y, anchor=anchor))


@pytest.mark.parametrize("anchor", ANCHORS)
def test_edge_shapes_are_finite_and_follow_the_formula(anchor):
    options = {"anchor": anchor, "alpha": 32.0, "delta": 0.1, "gamma": 0.1, "pooling": "softmax"}
    for b, c, labels in ((1, 3, [2]), (4, 1, [0, 0, 0, 0]), (1, 1, [0]), (5, 4, [1, 1, 1, 1, 1])):
        x, p, _ = problem(b, c, 2, 3)
        x.requires_grad_(), p.requires_grad_()
        loss = multi_proxy_anchor_loss(x, p, torch.tensor(labels), **options)
        assert loss.item() == pytest.approx(by_hand(x.tolist(), p.tolist(), labels, **options))
        assert all(g.isfinite().all() for g in torch.autograd.grad(loss, (x, p)))


def test_a_zero_embedding_gets_a_finite_gradient():
    x, p, y = problem(3, 2, 2, 4)
    x[1] = 0
    x.requires_grad_()
    multi_proxy_anchor_loss(x, p, y).backward()
    assert x.grad.isfinite().all()
    assert x.grad[1].abs().max() == 0


def test_only_direction_counts():
    x, p, y = problem(5, 3, 2, 4)
    torch.testing.assert_close(multi_proxy_anchor_loss(7 * x, p / 9, y), multi_proxy_anchor_loss(x, p, y))


def test_data_wise_and_class_wise_gradients():
    """Does an item's pull change when another item of its class moves? Its push, when another class's proxy does?"""

    def pull_of_first(anchor: str, other: Tensor) -> Tensor:
        x = torch.stack([torch.tensor([0.3, 0.9, 0.1]), other]).double().requires_grad_()
        p = torch.tensor([[[1.0, 0.0, 0.0]]], dtype=torch.float64)  # one class: no push at all
        return torch.autograd.grad(multi_proxy_anchor_loss(x, p, torch.tensor([0, 0]), anchor=anchor), x)[0][0]

    near, far = torch.tensor([0.9, 0.1, 0.0]), torch.tensor([-0.9, 0.1, 0.3])
    torch.testing.assert_close(pull_of_first("data", near), pull_of_first("data", far), rtol=1e-12, atol=0)
    for anchor in ("class", "mixed"):
        assert pull_of_first(anchor, near).norm() > 100 * pull_of_first(anchor, far).norm()


def test_labels_of_every_integer_dtype(subtests):
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32):
        with subtests.test(str(dtype)):
            x, p, y = problem(5, 3, 2, 4)
            assert multi_proxy_anchor_loss(x, p, y.to(dtype)) == multi_proxy_anchor_loss(x, p, y)


def test_errors_say_what_was_expected_and_what_came(subtests):
    for change, error, words in (
        ({"labels": torch.tensor([0, 3])}, ValueError, r"\[0, 3\), got numbers from 0 to 3"),
        ({"labels": torch.tensor([-1, 0])}, ValueError, "from -1 to 0"),
        ({"labels": torch.tensor([0.0, 1.0])}, TypeError, "integer dtype, got torch.float32"),
        ({"labels": torch.tensor([True, False])}, TypeError, "got torch.bool"),
        ({"labels": torch.tensor([0])}, ValueError, r"shape \(2,\), one per row, got \(1,\)"),
        ({"labels": [0, 1]}, TypeError, "must be a torch tensor of integers, got list"),
        ({"embeddings": torch.full((2, 4), torch.nan)}, ValueError, "NaN or infinity in 2 of 2 rows"),
        ({"embeddings": torch.zeros(2, 4, dtype=torch.int64)}, TypeError, "floating point"),
        ({"embeddings": torch.zeros(2, 5)}, ValueError, "columns as the proxies, 4, got 5"),
        ({"embeddings": torch.zeros(0, 4)}, ValueError, "at least one row"),
        ({"proxies": torch.zeros(3, 4)}, ValueError, r"\(C, K, D\), got \(3, 4\)"),
        ({"anchor": "clas"}, ValueError, "did you mean 'class'"),
        ({"pooling": "mean"}, ValueError, "'softmax', 'max', 'logsumexp'"),
        ({"impl": "fast"}, ValueError, "impl must be one of"),
        ({"proxies": [[1.0]]}, TypeError, "proxies must be a torch tensor"),
        ({"delta": math.nan}, ValueError, "delta must be a finite number"),
        ({"alpha": 0.0}, ValueError, "alpha must be a finite number above 0"),
        ({"gamma": -1.0}, ValueError, "gamma must be a finite number above 0"),
    ):
        with subtests.test(words):
            arguments = {
                "embeddings": torch.ones(2, 4),
                "proxies": torch.ones(3, 2, 4),
                "labels": torch.tensor([0, 1]),
            }
            with pytest.raises(error, match=words):
                multi_proxy_anchor_loss(**{**arguments, **change})


def test_the_push_competes_across_items_or_across_classes():
    """What makes the push on the first item at class 1 weaker: a second item near class 1, or class 2 near the item?"""

    def push(anchor: str, second_item: float, other_class: float) -> float:
        s = torch.tensor([[0.0, 0.3, other_class], [0.0, second_item, -0.5]], dtype=torch.float64, requires_grad=True)
        return float(torch.autograd.grad(anchor_loss(s, torch.tensor([0, 0]), anchor=anchor), s)[0][0, 1])

    alone = -0.5
    assert push("class", 0.8, alone) < 0.01 * push("class", alone, alone)
    assert push("class", alone, 0.8) == pytest.approx(push("class", alone, alone), rel=1e-12)
    for anchor in ("data", "mixed"):
        assert push(anchor, alone, 0.8) < 0.01 * push(anchor, alone, alone)
        assert push(anchor, 0.8, alone) == pytest.approx(push(anchor, alone, alone), rel=1e-12)


def test_log1p_sum_exp_counts_axes_from_the_end_too():
    z, members = torch.randn(3, 4), torch.rand(3, 4) > 0.5
    assert torch.equal(log1p_sum_exp(z, members, dim=-1), log1p_sum_exp(z, members, dim=1))


def test_log1p_sum_exp_over_nothing_is_zero_with_zero_gradient():
    z = torch.tensor([[3.0, -2.0]], requires_grad=True)
    nothing = log1p_sum_exp(z, torch.zeros(1, 2, dtype=torch.bool), dim=1)
    nothing.sum().backward()
    assert nothing.tolist() == [0.0]
    assert z.grad.tolist() == [[0.0, 0.0]]


def test_where_there_is_no_fused_loss_the_reason_is_said_and_eager_answers(monkeypatch):
    monkeypatch.setattr("polyanchor.functional.multi_proxy_anchor.why_not", lambda *_: "none is written for 'abacus'")
    x, p, y = problem(4, 3, 2, 5)
    with pytest.warns(UserWarning, match="falls back to 'eager': none is written for 'abacus'") as caught:
        loss = multi_proxy_anchor_loss(x, p, y, impl="fused")
    assert caught[0].filename == __file__
    assert loss == multi_proxy_anchor_loss(x, p, y, impl="eager")

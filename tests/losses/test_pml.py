"""SoftTriple against its paper's formula; the adapter's promises."""

import math

import pytest
import torch

pytest.importorskip("pytorch_metric_learning")
from polyanchor.losses.pml import soft_triple


def test_soft_triple_is_its_papers_formula():
    torch.manual_seed(0)
    c, k, d, la, gamma, margin, tau = 4, 3, 5, 20.0, 0.1, 0.01, 0.2
    loss = soft_triple(c, d, centers_per_class=k, scale=la, gamma=gamma, margin=margin, merging=tau)
    x, y = torch.nn.functional.normalize(torch.randn(6, d)), torch.tensor([0, 1, 2, 3, 0, 0])
    centres = loss.loss.fc.detach().T.view(c, k, d)
    total = 0.0
    for item, label in zip(x, y, strict=True):
        s = []
        for own in centres:
            cos = (own @ item) / own.norm(dim=1)
            s.append(float((torch.softmax(cos / gamma, 0) * cos).sum()))
        exponents = [la * (value - margin * (number == label)) for number, value in enumerate(s)]
        total += -exponents[label] + math.log(sum(math.exp(e) for e in exponents))
    pairs = sum(
        math.sqrt(2 - 2 * min(1.0, float(own[a] @ own[b])))
        for own in centres
        for a in range(k)
        for b in range(a + 1, k)
    )
    want = total / len(x) + tau * pairs / (c * k * (k - 1))
    assert loss(x, y).item() == pytest.approx(float(want), rel=1e-3)  # the regulariser adds 1e-5 under its root


def test_centres_start_at_length_one():
    torch.testing.assert_close(soft_triple(7, 5).loss.fc.norm(dim=0), torch.ones(70))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_batch_of_another_dtype_does_not_change_the_centres(dtype):
    loss = soft_triple(4, 5)
    loss(torch.eye(5, dtype=dtype)[:3], torch.tensor([0, 1, 2], dtype=torch.int32)).backward()
    assert loss.loss.fc.dtype == loss.loss.fc.grad.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(torch.eye(5)[:3], torch.tensor([0, 1, 2])).dtype == torch.float32


def test_one_centre_has_no_regulariser():
    assert soft_triple(4, 5, centers_per_class=1)(torch.eye(5)[:2], torch.tensor([0, 1])).isfinite()

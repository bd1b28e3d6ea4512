"""The module: its proxies, their precision, their angular learning rate, value checks that do not wait."""

import copy
import itertools
import pickle

import pytest
import torch

import polyanchor as pa
from polyanchor.functional import center_regularizer, multi_proxy_anchor_loss


def batch(b=6, d=8, c=4, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(b, d, generator=generator).to(dtype), torch.randint(c, (b,), generator=generator)


@pytest.mark.parametrize("anchor", ["class", "data", "mixed"])
def test_is_the_function_on_its_own_proxies(anchor):
    x, y = batch()
    options = {"anchor": anchor, "alpha": 20.0, "delta": 0.2, "gamma": 0.3, "pooling": "logsumexp"}
    loss = pa.MultiProxyAnchorLoss(4, 8, proxies_per_class=3, **options)
    assert loss(x, y) == multi_proxy_anchor_loss(x, loss.proxies, y, **options)


@pytest.mark.parametrize("anchor", ["class", "data", "mixed"])
def test_merging_adds_its_penalty_and_the_gradient_of_it(anchor):
    x, y = batch()
    loss = pa.MultiProxyAnchorLoss(4, 8, proxies_per_class=3, anchor=anchor, center_reg=0.5)
    loss(x, y).backward()
    proxies = loss.proxies.detach().clone().requires_grad_()
    want = multi_proxy_anchor_loss(x, proxies, y, anchor=anchor) + 0.5 * center_regularizer(proxies)
    want.backward()
    torch.testing.assert_close(loss(x, y), want)
    torch.testing.assert_close(loss.proxies.grad, proxies.grad)
    assert "center_reg=0.5" in repr(loss)


def test_merging_gives_an_unusable_batch_no_gradient(monkeypatch):
    from polyanchor.losses import multi_proxy_anchor as module

    monkeypatch.setattr(module, "multi_proxy_anchor_loss", lambda x, p, y, **_: (p * 0).sum() + torch.nan)
    x, y = batch()
    loss = pa.MultiProxyAnchorLoss(4, 8, center_reg=0.5)
    value = loss(x, y)
    value.backward()
    assert value.isnan()
    assert not loss.proxies.grad.any()


def test_proxies_start_at_length_one_whatever_c_and_k(subtests):
    for classes, centres in itertools.product((1, 98, 1000), (1, 10)):
        with subtests.test(classes=classes, centres=centres):
            loss = pa.MultiProxyAnchorLoss(classes, 16, proxies_per_class=centres)
            assert loss.proxies.shape == (classes, centres, 16)
            torch.testing.assert_close(loss.proxies.norm(dim=2), torch.ones(classes, centres))


def test_kaiming_is_the_published_initialisation():
    torch.manual_seed(3)
    loss = pa.MultiProxyAnchorLoss(50, 16, proxies_per_class=1, init="kaiming")
    torch.manual_seed(3)
    want = torch.nn.init.kaiming_normal_(torch.empty(50, 16), mode="fan_out")
    assert torch.equal(loss.proxies.detach()[:, 0], want)


def median_turn(classes: int, centres: int, init: str) -> float:
    """Angle by which one step of AdamW at rate 0.01 turns a proxy, in radians; dim 32."""
    torch.manual_seed(0)
    loss = pa.MultiProxyAnchorLoss(classes, 32, proxies_per_class=centres, init=init)
    before = torch.nn.functional.normalize(loss.proxies.detach().clone(), dim=2)
    optimizer = torch.optim.AdamW(loss.parameters(), lr=0.01, weight_decay=0.0)
    loss(torch.randn(64, 32), torch.arange(64) % classes).backward()
    optimizer.step()
    after = torch.nn.functional.normalize(loss.proxies.detach(), dim=2)
    return float((before * after).sum(2).clamp(-1, 1).arccos().median())


def test_the_angular_learning_rate_does_not_depend_on_c_and_k():
    turns = [median_turn(c, k, "fixed") for c, k in itertools.product((4, 40, 400), (1, 10))]
    assert max(turns) < 1.1 * min(turns)
    assert turns[0] == pytest.approx(0.01 * 32**0.5, rel=0.1)  # lr sqrt(D) / length
    kaiming = [median_turn(c, k, "kaiming") for c, k in ((4, 1), (400, 10))]
    assert kaiming[1] > 8 * kaiming[0]  # what the fixed length is there to prevent


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_proxies_gradients_and_optimizer_state_stay_float32_under_autocast(dtype):
    loss = pa.MultiProxyAnchorLoss(4, 8, proxies_per_class=2)
    optimizer = torch.optim.AdamW(loss.parameters())
    x, y = batch()
    with torch.autocast("cpu", dtype=dtype):
        value = loss(x.to(dtype), y)
    value.backward()
    optimizer.step()
    state = [t for t in optimizer.state[loss.proxies].values() if t.ndim]
    assert {t.dtype for t in (value, loss.proxies, loss.proxies.grad, *state)} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_one_batch_of_another_dtype_does_not_change_the_proxies(dtype):
    loss = pa.MultiProxyAnchorLoss(4, 8)
    x, y = batch(dtype=dtype)
    loss(x.requires_grad_(), y).backward()
    assert loss.proxies.dtype == loss.proxies.grad.dtype == torch.float32
    assert x.grad.dtype == dtype


def test_half_leaves_the_proxies_alone_and_double_widens_them():
    loss = pa.MultiProxyAnchorLoss(4, 8)
    before = loss.proxies.detach().clone()
    assert torch.equal(loss.half().bfloat16().proxies, before)
    assert loss.double().proxies.dtype == torch.float64
    assert loss.float().proxies.dtype == torch.float32


def test_out_of_range_labels_and_nan_raise_on_the_cpu_at_once():
    loss = pa.MultiProxyAnchorLoss(4, 8)
    x, y = batch()
    with pytest.raises(ValueError, match=r"in \[0, 4\), got numbers from .* to 9. Number the training classes"):
        loss(x, y.clone().fill_(9))
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 6 rows, first in row 2"):
        loss(x.index_fill(0, torch.tensor(2), torch.nan), y)


def test_bad_options(subtests):
    for options, error, words in (
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1, got 0"),
        ({"embedding_dim": 8.0}, TypeError, "embedding_dim must be an integer, got float"),
        ({"proxies_per_class": True}, TypeError, "proxies_per_class must be an integer"),
        ({"anchor": "datum"}, ValueError, "did you mean 'data'"),
        ({"init": "xavier"}, ValueError, "init must be one of 'fixed', 'kaiming'"),
        ({"gamma": 0}, ValueError, "gamma must be"),
        ({"center_reg": -0.1}, ValueError, "center_reg must be a finite number of 0 or more, got -0.1"),
        ({"center_reg": float("nan")}, ValueError, "center_reg must be"),
    ):
        with subtests.test(words), pytest.raises(error, match=words):
            pa.MultiProxyAnchorLoss(**{"num_classes": 4, "embedding_dim": 8, **options})


def test_state_dict_holds_the_proxies_alone_and_the_module_copies_and_pickles():
    loss = pa.MultiProxyAnchorLoss(4, 8)
    assert list(loss.state_dict()) == ["proxies"]
    x, y = batch()
    assert copy.deepcopy(loss)(x, y) == pickle.loads(pickle.dumps(loss))(x, y) == loss(x, y)


def test_training_pulls_the_classes_apart():
    torch.manual_seed(0)
    net, loss = torch.nn.Linear(8, 4), pa.MultiProxyAnchorLoss(3, 4, proxies_per_class=2, anchor="mixed")
    x, y = torch.randn(60, 8), torch.arange(60) % 3
    x[range(60), y] += 3
    optimizer = torch.optim.Adam([*net.parameters(), *loss.parameters()], lr=0.05)
    before = pa.evaluate_retrieval(net(x).detach(), y, k=1).means["map@r"]
    for _ in range(60):
        optimizer.zero_grad()
        loss(net(x), y).backward()
        optimizer.step()
    assert pa.evaluate_retrieval(net(x).detach(), y, k=1).means["map@r"] > max(0.8, before)


@pytest.mark.slow
def test_torch_compile_gives_the_same_value():
    loss = pa.MultiProxyAnchorLoss(4, 8)
    x, y = batch()
    torch.testing.assert_close(torch.compile(loss, backend="eager")(x, y), loss(x, y))

"""The fused loss against its eager twin, which has witnesses of its own: value and all gradients."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad

from polyanchor import MultiProxyAnchorLoss
from polyanchor._errors import InputError
from polyanchor._kernels import LossOptions, blocks, fused_loss
from polyanchor._kernels import fused as autograd
from polyanchor._kernels.sweep import sweep as plain_sweep
from polyanchor.functional import multi_proxy_anchor_loss
from tests.covering import covering

ANCHORS = "class", "data", "mixed"
POOLINGS = "softmax", "max", "logsumexp"
BLOCKS = "many blocks", "one block"


def problem(b: int, c: int, k: int, d: int, *, seed: int = 0, dtype=torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(b, d, generator=generator, dtype=torch.float64)
    p = torch.randn(c, k, d, generator=generator, dtype=torch.float64)
    return x.to(dtype).requires_grad_(), p.to(dtype).requires_grad_(), torch.randint(c, (b,), generator=generator)


def gradients(x: Tensor, p: Tensor, y: Tensor, factor: float = 3.0, **options) -> tuple[Tensor, ...]:
    loss = multi_proxy_anchor_loss(x, p, y, **options)
    return loss, *torch.autograd.grad(factor * loss, (x, p))


def same(x: Tensor, p: Tensor, y: Tensor, *, rtol: float = 1e-9, **options) -> None:
    for got, want in zip(*(gradients(x, p, y, impl=impl, **options) for impl in ("fused", "eager")), strict=True):
        torch.testing.assert_close(got, want, rtol=rtol, atol=rtol * float(want.detach().abs().max()) + 1e-10)


@pytest.fixture
def many_or_one(request, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_SCORES", {"many blocks": 0, "one block": 10**9}[request.param])
    monkeypatch.setattr(blocks, "FEWEST_PROXIES", 6)


@pytest.mark.parametrize(
    ("anchor", "pooling", "k", "shape", "alpha", "many_or_one"),
    covering(
        ANCHORS,
        POOLINGS,
        (1, 2, 3),
        [(11, 7), (5, 23), (40, 13), (1, 3), (4, 1), (1, 1)],
        (8.0, 32.0, 1000.0),
        BLOCKS,
        strength=3,
    ),
    indirect=["many_or_one"],
)
@pytest.mark.usefixtures("many_or_one")
def test_equals_the_eager_twin(anchor, pooling, k, shape, alpha):
    """Awkward shapes: more rows than columns and fewer, uneven last blocks, absent classes, no negatives."""
    same(*problem(*shape, k, 9), anchor=anchor, pooling=pooling, alpha=alpha)


@pytest.mark.parametrize(
    ("anchor", "pooling", "many_or_one"), covering(ANCHORS, POOLINGS, BLOCKS), indirect=["many_or_one"]
)
@pytest.mark.usefixtures("many_or_one")
def test_float32_and_a_narrow_assignment(anchor, pooling):
    x, p, y = problem(12, 9, 3, 5, dtype=torch.float32)
    same(x, p, y, anchor=anchor, pooling=pooling, rtol=2e-5)
    same(x, p, y, anchor=anchor, pooling=pooling, gamma=0.01, rtol=2e-4)


@pytest.mark.slow
@given(
    st.integers(1, 9),
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(2, 6),  # with one column the gradients are rounding alone
    st.integers(0, 10_000),
    st.sampled_from(ANCHORS),
    st.sampled_from(POOLINGS),
    st.floats(0.5, 200),
    st.floats(-0.5, 0.5),
    st.floats(0.01, 1),
    st.integers(1, 9),
)
@settings(max_examples=150, deadline=None)
def test_equals_the_eager_twin_whatever_the_options(b, c, k, d, seed, anchor, pooling, alpha, delta, gamma, fewest):
    x, p, y = problem(b, c, k, d, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_SCORES", 0)
        patch.setattr(blocks, "FEWEST_PROXIES", fewest)
        same(x, p, y, anchor=anchor, pooling=pooling, alpha=alpha, delta=delta, gamma=gamma, rtol=1e-8)


@pytest.mark.parametrize(("anchor", "k"), list(product(ANCHORS, (1, 3))))
def test_gradcheck(anchor, k):
    x, p, y = problem(5, 4, k, 3)
    family = LossOptions(anchor=anchor, alpha=8.0)
    assert torch.autograd.gradcheck(lambda x, p: fused_loss(x, p, y, family), (x, p))


@pytest.mark.parametrize("anchor", ANCHORS)
def test_only_the_gradients_that_are_wanted(anchor):
    x, p, y = problem(8, 5, 2, 4)
    loss, to_x, to_p = gradients(x, p, y, factor=1, anchor=anchor, impl="eager")
    alone = multi_proxy_anchor_loss(x, p.detach(), y, anchor=anchor, impl="fused")
    torch.testing.assert_close(torch.autograd.grad(alone, x)[0], to_x)
    alone = multi_proxy_anchor_loss(x.detach(), p, y, anchor=anchor, impl="fused")
    torch.testing.assert_close(torch.autograd.grad(alone, p)[0], to_p)
    with torch.no_grad():
        torch.testing.assert_close(multi_proxy_anchor_loss(x, p, y, anchor=anchor, impl="fused"), loss)
    assert not multi_proxy_anchor_loss(x.detach(), p.detach(), y, anchor=anchor, impl="fused").requires_grad


@pytest.mark.parametrize("anchor", ANCHORS)
def test_no_gradient_is_made_that_nobody_wants(monkeypatch, anchor):
    x, p, y = problem(8, 5, 2, 4)
    made = []

    def sweep(*args, **options):
        swept = plain_sweep(*args, **options)
        made.append((swept.to_units is not None, swept.to_proxies is not None))
        return swept

    monkeypatch.setattr(autograd, "sweep", sweep)
    for context, to_x, to_p in product(
        (torch.enable_grad, torch.no_grad, torch.inference_mode), (True, False), (True, False)
    ):
        with context():
            multi_proxy_anchor_loss(x if to_x else x.detach(), p if to_p else p.detach(), y, anchor=anchor)
        asked = context is torch.enable_grad
        assert made.pop() == (to_x and asked, to_p and asked)


def by_dual_numbers(f, x: Tensor, direction: Tensor) -> Tensor:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(x, direction))).tangent


# What is asked of f at x, and the same from the gradient and the second derivative that backward() gives.
TRANSFORMS = {
    "grad": (lambda f, x, v: torch.func.grad(f)(x), lambda f, x, v, g, h: g),
    "grad of another": (
        lambda f, x, v: torch.func.grad(lambda a: a * f(x))(torch.ones((), dtype=x.dtype)),
        lambda f, x, v, g, h: f(x),
    ),
    "jvp": (lambda f, x, v: torch.func.jvp(f, (x,), (v,))[1], lambda f, x, v, g, h: (g * v).sum()),
    "vjp": (lambda f, x, v: torch.func.vjp(f, x)[1](torch.ones((), dtype=x.dtype))[0], lambda f, x, v, g, h: g),
    "dual": (by_dual_numbers, lambda f, x, v, g, h: (g * v).sum()),
    "vmap": (lambda f, x, v: torch.vmap(f)(torch.stack([x, v])), lambda f, x, v, g, h: torch.stack([f(x), f(v)])),
    "vmap of grad": (lambda f, x, v: torch.vmap(torch.func.grad(f))(x[None])[0], lambda f, x, v, g, h: g),
    "jacfwd": (lambda f, x, v: torch.func.jacfwd(f)(x), lambda f, x, v, g, h: g),
    "hessian": (lambda f, x, v: torch.func.hessian(f)(x), lambda f, x, v, g, h: h),
}


@pytest.mark.parametrize("of", ["embeddings", "proxies"])
def test_function_transforms(subtests, of):
    x, p, y = (value.detach() for value in problem(5, 4, 2, 3))
    at = x if of == "embeddings" else p

    def loss(value: Tensor, impl: str = "auto") -> Tensor:
        return multi_proxy_anchor_loss(*((value, p) if of == "embeddings" else (x, value)), y, alpha=8.0, impl=impl)

    gradient = torch.autograd.functional.jacobian(lambda value: loss(value, "eager"), at)
    second = torch.autograd.functional.hessian(lambda value: loss(value, "eager"), at)
    other = at.flip(0)
    for name, (ask, expect) in TRANSFORMS.items():
        with subtests.test(name):
            torch.testing.assert_close(ask(loss, at, other), expect(loss, at, other, gradient, second))
            with pytest.raises(InputError, match=r"inside torch.func .* pass impl='eager' \(or 'auto'\) there"):
                ask(lambda value: loss(value, "fused"), at, other)


def test_modules_side_by_side():
    """The recipe of torch.func: parameters stacked, one vmap over the gradient of a functional call."""
    x, _, y = problem(5, 4, 2, 3, dtype=torch.float32)
    modules = [MultiProxyAnchorLoss(4, 3, proxies_per_class=2) for _ in range(3)]
    parameters, _ = torch.func.stack_module_state(modules)

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(modules[0], parameters, (x.detach(), y))

    found = torch.vmap(torch.func.grad(loss))(parameters)["proxies"]
    for module, gradient in zip(modules, found, strict=True):
        module(x.detach(), y).backward()
        torch.testing.assert_close(gradient, module.proxies.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("impl", ["auto", "fused"])
def test_several_gradients_at_once(impl):
    x, p, y = problem(5, 4, 2, 3)
    upstream = torch.tensor([1.0, -2.0], dtype=x.dtype)
    one = torch.autograd.grad(multi_proxy_anchor_loss(x, p, y, impl="eager"), x)[0]
    loss = multi_proxy_anchor_loss(x, p, y, impl=impl)
    found = torch.autograd.grad(loss, x, upstream, is_grads_batched=True, retain_graph=True)[0]
    torch.testing.assert_close(found, torch.stack([one, -2 * one]))
    found = torch.vmap(lambda factor: torch.autograd.grad(loss, x, factor)[0])(upstream)
    torch.testing.assert_close(found, torch.stack([one, -2 * one]))


@pytest.mark.parametrize("anchor", ANCHORS)
def test_a_retained_graph_gives_the_same_gradients_again(anchor):
    x, p, y = problem(8, 5, 2, 4)
    loss = multi_proxy_anchor_loss(x, p, y, anchor=anchor, impl="fused")
    first = [value.clone() for value in torch.autograd.grad(2 * loss, (x, p), retain_graph=True)]
    second = torch.autograd.grad(2 * loss, (x, p))
    torch.testing.assert_close(first, list(second))


def test_the_inputs_are_left_as_they_are():
    x, p, y = problem(8, 5, 2, 4)
    before = x.detach().clone(), p.detach().clone(), y.clone()
    gradients(x, p, y, impl="fused", anchor="data")
    assert all(torch.equal(value, old) for value, old in zip((x, p, y), before, strict=True))


@pytest.mark.parametrize("anchor", ANCHORS)
def test_a_gradient_of_the_gradient(anchor):
    """``fused`` says that it has none; ``auto`` has the twin's."""
    x, p, y = problem(5, 4, 2, 3)
    loss = multi_proxy_anchor_loss(x, p, y, anchor=anchor, impl="fused")
    with pytest.raises(RuntimeError, match="first-order gradients only.*pass impl='eager'"):
        torch.autograd.grad(loss, x, create_graph=True)

    def penalty(impl: str) -> tuple[Tensor, ...]:
        loss = multi_proxy_anchor_loss(x, p, y, anchor=anchor, impl=impl)
        return torch.autograd.grad(torch.autograd.grad(loss, x, create_graph=True)[0].square().sum(), (x, p))

    torch.testing.assert_close(penalty("auto"), penalty("eager"))


@pytest.mark.parametrize(("anchor", "dtype"), list(product(ANCHORS, (torch.float16, torch.bfloat16))))
def test_half_precision_inputs_are_no_worse_than_eager(anchor, dtype):
    x, p, y = problem(12, 9, 3, 8)
    x = x.detach().to(dtype).requires_grad_()
    exact = gradients(x.detach().double().requires_grad_(), p, y, anchor=anchor, impl="eager")
    p = p.detach().float().requires_grad_()
    error = {}
    for impl in ("fused", "eager"):
        got = gradients(x, p, y, anchor=anchor, impl=impl)
        assert got[0].dtype == torch.float32 and got[1].dtype == dtype and got[2].dtype == torch.float32
        error[impl] = [float(((a.double() - b).norm() / b.norm()).detach()) for a, b in zip(got, exact, strict=True)]
    room = 1e-6, torch.finfo(dtype).eps, 1e-5  # the embeddings' gradient has their dtype
    assert all(f <= 2 * e + r for f, e, r in zip(error["fused"], error["eager"], room, strict=True))


@pytest.mark.parametrize("anchor", ANCHORS)
def test_autocast_around_it_changes_nothing(anchor):
    x, p, y = problem(12, 9, 3, 8, dtype=torch.float32)
    want = gradients(x, p, y, anchor=anchor, impl="fused")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = gradients(x, p, y, anchor=anchor, impl="fused")
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("anchor", ANCHORS)
def test_inside_torch_compile(anchor):
    """Same gradients, and the blocks of the sweep are not traced one by one."""
    x, p, y = problem(12, 9, 3, 8)
    sizes = []

    def no_compiler(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        sizes.append(len(graph.graph.nodes))
        return graph

    @torch.compile(backend=no_compiler)
    def step(x: Tensor, p: Tensor) -> Tensor:
        return multi_proxy_anchor_loss(2 * x, p, y, anchor=anchor, impl="fused") * 3

    got = torch.autograd.grad(step(x, p), (x, p))
    torch.testing.assert_close(got, gradients(x, p, y, anchor=anchor, impl="eager")[1:])
    assert max(sizes) < 20  # the checks alone are 11; the sweep is far more


@pytest.mark.parametrize("many_or_one", BLOCKS, indirect=True)
@pytest.mark.usefixtures("many_or_one")
@pytest.mark.parametrize("anchor", ANCHORS)
def test_rows_and_proxies_of_length_zero_and_of_extreme_length(anchor):
    x, p, y = (value.detach() for value in problem(6, 14, 2, 4, dtype=torch.float32))
    x[1], x[2], x[3] = 0, x[2] * 1e25, x[3] * 1e-25
    p[3, 1], p[4, 0], p[13, 1] = 0, p[4, 0] * 1e25, p[13, 1] * 1e-25
    x.requires_grad_(), p.requires_grad_()
    got, want = (gradients(x, p, y, anchor=anchor, impl=impl) for impl in ("fused", "eager"))
    torch.testing.assert_close(got[0], want[0])
    for a, b, length in ((got[1], want[1], x.detach()), (got[2], want[2], p.detach())):
        size = length.abs().amax(dim=-1, keepdim=True)  # a gradient is as long as its vector is short
        torch.testing.assert_close(a * size, b * size, rtol=1e-4, atol=1e-4)
    assert got[1][1].abs().max() == 0 and got[2][3, 1].abs().max() == 0


def test_proxies_that_are_not_contiguous():
    x, p, y = problem(6, 5, 3, 4)
    turned = p.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    assert not turned.is_contiguous()
    torch.testing.assert_close(gradients(x, turned, y, impl="fused"), gradients(x, p, y, impl="eager"))


def test_the_module_trains_alike_with_either():
    x, _, y = problem(20, 6, 1, 5, dtype=torch.float32)
    trained = {}
    for impl in ("fused", "eager", "auto"):
        torch.manual_seed(0)
        loss = MultiProxyAnchorLoss(6, 5, proxies_per_class=3, anchor="mixed", impl=impl)
        optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            loss(x, y).backward()
            optimizer.step()
        trained[impl] = loss.proxies.detach()
    torch.testing.assert_close(trained["fused"], trained["eager"], rtol=1e-4, atol=1e-5)
    assert torch.equal(trained["auto"], trained["fused"])

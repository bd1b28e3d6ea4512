"""Classes spread over ranks: loss, gradients, initial proxies and training steps of one process on the joined batch."""

import math
from contextlib import nullcontext
from itertools import product

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.parallel import DistributedDataParallel

from polyanchor import MultiProxyAnchorLoss
from polyanchor.distributed import sharded_loss as shard_sweep
from polyanchor.distributed.sharded_loss import ShardedMultiProxyAnchorLoss, _sweep
from polyanchor.functional import center_regularizer
from polyanchor.losses.proxies import fixed_lengths
from tests.covering import covering
from tests.distributed.ranks import on_ranks

CLASSES, WIDTH, DIM = 7, 6, 5
SIZES = {"uneven": (5, 2, 4), "one without rows": (7, 0, 3)}  # rows of each rank; two ranks take the first two
LABELS = {"all": CLASSES, "first": 2}  # with the first two classes alone, the other ranks hold none of the batch
ANCHORS = "class", "data", "mixed"
PLAIN = [{"anchor": anchor, "proxies_per_class": k, "alpha": 16.0} for anchor, k in product(ANCHORS, (1, 3))]
OTHERS = [
    *({**case, "pooling": pooling} for case, pooling in product(PLAIN[1::2], ("max", "logsumexp"))),
    *({"anchor": anchor, "proxies_per_class": 2, "alpha": 500.0} for anchor in ANCHORS),
    {"anchor": "mixed", "proxies_per_class": 3, "center_reg": 0.5},
    {
        "anchor": "data",
        "proxies_per_class": 2,
        "alpha": 16.0,
        "negative_sample_rate": 0.999,
    },  # by that way, but all drawn
]
CASES = [
    *covering((2, 3), list(SIZES), list(LABELS), PLAIN, strength=3),
    *product((3,), ("uneven",), ("all",), OTHERS),
]


def named(ranks, sizes, labels, case):
    return f"{ranks} ranks, {sizes}, {labels} labels, " + ", ".join(f"{key} {value}" for key, value in case.items())


def witness(rows, proxies, labels, *, anchor, alpha=32.0, delta=0.1, gamma=0.1, pooling="softmax", center_reg=0.0, **_):
    """The formulas of the documentation, with plain logsumexp over everything."""
    cosines = nn.functional.normalize(rows, dim=1) @ nn.functional.normalize(proxies, dim=2).flatten(0, 1).T
    cosines = cosines.unflatten(1, proxies.shape[:2])
    pooled = {
        "softmax": ((cosines / gamma).softmax(2) * cosines).sum(2),
        "max": cosines.amax(2),
        "logsumexp": gamma * ((cosines / gamma).logsumexp(2) - math.log(cosines.shape[2])),
    }[pooling]
    own = nn.functional.one_hot(labels, len(proxies)).bool()

    def lse0(exponents, members, dim):
        one = exponents.new_zeros(()).expand_as(exponents).narrow(dim, 0, 1)
        return torch.cat([one, exponents.masked_fill(~members, -torch.inf)], dim).logsumexp(dim)

    pull, push = -alpha * (pooled - delta), alpha * (pooled + delta)
    pulled = lse0(pull, own, 1).mean() if anchor == "data" else lse0(pull, own, 0).sum() / own.any(0).sum()
    pushed = lse0(push, ~own, 0).mean() if anchor == "class" else lse0(push, ~own, 1).mean()
    return pulled + pushed + center_reg * center_regularizer(proxies)


def relative(got, want):
    return float((got - want).norm() / want.norm().clamp_min(1e-300))


def gradient_of_proxies(loss):
    if loss.sample is None:
        return loss.proxies.grad.full_tensor()
    gradient = torch.zeros_like(loss.proxies.detach())
    gradient.to_local()[loss.sample.classes] = loss.sample.proxies.grad
    return gradient.full_tensor()


def differences(mesh, sizes, labels, case):
    """Relative errors of loss, model gradient and proxies' gradient on the ranks of the mesh."""
    rank, ranks = mesh.get_local_rank(), mesh.size()
    counts = SIZES[sizes][:ranks]
    torch.manual_seed(len(str(case)))
    model = nn.Linear(WIDTH, DIM).double()
    inputs, classes = torch.randn(sum(counts), WIDTH).double(), torch.randint(LABELS[labels], (sum(counts),))
    state = torch.get_rng_state()
    loss = ShardedMultiProxyAnchorLoss(CLASSES, DIM, mesh=mesh, **case).double()
    torch.set_rng_state(state)
    whole = MultiProxyAnchorLoss(CLASSES, DIM, proxies_per_class=case["proxies_per_class"]).double()

    want = witness(model(inputs), whole.proxies, classes, **case)
    to_model = torch.autograd.grad(2 * want, [*model.parameters(), whole.proxies])  # 2: an upstream that is not 1

    here = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
    data_parallel = DistributedDataParallel(model, process_group=mesh.get_group())
    found = loss(data_parallel(inputs[here]), classes[here])
    (2 * found).backward()
    got = [parameter.grad for parameter in model.parameters()] + [gradient_of_proxies(loss)]
    assert torch.equal(loss.proxies.full_tensor(), whole.proxies)
    assert len(loss.proxies.to_local()) < CLASSES
    return max(relative(*pair) for pair in zip([found, *got], [want, *to_model], strict=True))


def training_difference(mesh, length):
    """Three steps of AdamW on both, float64: the proxies and a moment at the end."""
    torch.manual_seed(5)
    loss = ShardedMultiProxyAnchorLoss(CLASSES, DIM, mesh=mesh, proxies_per_class=2, anchor="mixed").double()
    torch.manual_seed(5)
    whole = MultiProxyAnchorLoss(CLASSES, DIM, proxies_per_class=2, anchor="mixed").double()
    ours, theirs = (torch.optim.AdamW(each.parameters(), lr=0.1, weight_decay=0.1) for each in (loss, whole))
    rows, labels = torch.randn(mesh.size() * 4, DIM).double(), torch.randint(CLASSES, (mesh.size() * 4,))
    mine = slice(mesh.get_local_rank(), None, mesh.size())
    for _ in range(3):
        for module, optimizer, here in ((loss, ours, mine), (whole, theirs, slice(None))):
            optimizer.zero_grad()
            module(rows[here], labels[here]).backward()
            with fixed_lengths(module) if length == "fixed" else nullcontext():
                optimizer.step()
    moments = [optimizer.state[module.proxies]["exp_avg_sq"] for module, optimizer in ((loss, ours), (whole, theirs))]
    return max(relative(loss.proxies.full_tensor(), whole.proxies), relative(moments[0].full_tensor(), moments[1]))


def refusals(mesh):
    """What the rank is told."""
    loss = ShardedMultiProxyAnchorLoss(CLASSES, DIM, mesh=mesh)
    last = mesh.get_local_rank() == mesh.size() - 1
    rows, labels = torch.randn(3, DIM), torch.tensor([0, 1, 9 if last else 2])
    told = {}
    for name, call in {
        "label of the last rank": lambda: loss(rows, labels),
        "rows of the last rank": lambda: loss(rows / (0 if last else 1), labels.clamp_max(2)),
        "nobody has rows": lambda: loss(rows[:0], labels[:0]),
        "too few classes": lambda: ShardedMultiProxyAnchorLoss(mesh.size() - 1, DIM, mesh=mesh),
        "a rank without": lambda: ShardedMultiProxyAnchorLoss(4, DIM, mesh=mesh),
        "option": lambda: ShardedMultiProxyAnchorLoss(CLASSES, DIM, mesh=mesh, anchor="datum"),
    }.items():
        try:
            call()
        except ValueError as error:
            told[name] = str(error)
    return told


def everything():
    found = {}
    for ranks in (2, 3):
        mesh = DeviceMesh("cpu", list(range(ranks)))
        if dist.get_rank() >= ranks:
            continue
        for case in CASES:
            if case[0] == ranks:
                found[named(*case)] = differences(mesh, *case[1:])
        for length in ("free", "fixed"):
            found[f"{ranks} ranks, training, {length}"] = training_difference(mesh, length)
        found[f"{ranks} ranks, refusals"] = refusals(mesh)
    return found


@pytest.fixture(scope="module")
def found():
    return on_ranks(3, everything)


@pytest.mark.slow
@pytest.mark.parametrize("name", [named(*case) for case in CASES])
def test_loss_and_gradients_are_those_of_one_process(found, name):
    values = [rank[name] for rank in found if name in rank]
    assert len(values) == int(name[0]) and max(values) < 1e-10


@pytest.mark.parametrize(
    "name", [f"{ranks} ranks, training, {length}" for ranks in (2, 3) for length in ("free", "fixed")]
)
def test_steps_of_the_optimizer_are_those_of_one_process(found, name):
    assert max(rank[name] for rank in found if name in rank) < 1e-10


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("label of the last rank", "labels must be class numbers in [0, 7), got numbers from 0 to 9"),
        ("rows of the last rank", "embeddings must be finite, got NaN or infinity in 3 of 9 rows, first in row 6"),
        ("nobody has rows", "at least one row"),
        ("too few classes", "num_classes must leave no rank without a class, got 2 for 3 ranks"),
        ("a rank without", "got 4 for 3 ranks: in chunks of 2 they go to 2; take 2 ranks"),
        ("option", "did you mean 'data'"),
    ],
)
def test_every_rank_is_told_the_same(found, name, words):
    for rank in found:
        assert words in rank["3 ranks, refusals"][name]


def test_a_process_group_is_asked_for():
    with pytest.raises(RuntimeError, match=r"init_process_group\(\) first"):
        ShardedMultiProxyAnchorLoss(3, 4)


@pytest.fixture
def alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_function_transforms_are_refused():
    loss, x, y = ShardedMultiProxyAnchorLoss(3, 4), torch.randn(2, 4), torch.tensor([0, 2])
    with pytest.raises(ValueError, match=r"inside torch.func .* use polyanchor.MultiProxyAnchorLoss"):
        torch.func.grad(lambda rows: loss(rows, y))(x)


@pytest.mark.usefixtures("alone")
def test_capture_in_a_cuda_graph_is_refused(monkeypatch):
    loss, x, y = ShardedMultiProxyAnchorLoss(3, 4), torch.randn(2, 4), torch.tensor([0, 2])
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(ValueError, match="CUDA graph that is being captured; leave the loss out"):
        loss(x, y)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("anchor", ANCHORS)
def test_no_gradient_is_made_that_nobody_wants(monkeypatch, anchor):
    made = []

    def plain(*args):
        found = _sweep(*args)
        made.append([gradient is not None for gradient in found[1:]])
        return found

    monkeypatch.setattr(shard_sweep, "_sweep", plain)
    loss, x, y = ShardedMultiProxyAnchorLoss(3, 4, anchor=anchor), torch.randn(2, 4), torch.tensor([0, 2])
    with torch.no_grad():
        value = loss(x.requires_grad_(), y)
    with_gradients = loss(x, y)
    loss(x.detach(), y)
    assert made == [[False, False], [True, True], [False, True]]
    torch.testing.assert_close(value, with_gradients.detach())

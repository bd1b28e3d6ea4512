"""A batch spread over ranks: loss and gradients of one process on the joined batch, for every loss of the package."""

from itertools import product

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.parallel import DistributedDataParallel

from polyanchor import MultiProxyAnchorLoss, embed_in_micro_batches
from polyanchor.distributed.data_parallel import DataParallelLoss
from polyanchor.losses.proxies import fixed_lengths
from tests.covering import covering
from tests.distributed.ranks import on_ranks

CLASSES, WIDTH, DIM = 5, 6, 4
SIZES = {"uneven": (7, 3, 5), "one without rows": (10, 0, 5)}  # rows of each rank; two ranks take the first two
LABELS = torch.tensor([0, 1, 0, 2, 1, 2, 0, 3, 3, 1, 2, 2, 0, 1, 3])  # class 4 has no item
FAMILY = {
    f"{anchor}, K {centres}": {"anchor": anchor, "proxies_per_class": centres}
    for anchor, centres in product(("class", "data", "mixed"), (1, 3))
}
FAMILY["center_reg"] = {"anchor": "mixed", "proxies_per_class": 3, "center_reg": 0.5}
BASELINES = {
    "proxy-nca": {"scale": 3.0},
    "normsoftmax": {"temperature": 0.05},
    "softtriple": {"proxies_per_class": 3, "scale": 20.0, "gamma": 0.1, "margin": 0.01, "center_reg": 0.2},
    "arcface": {"margin": 28.6, "scale": 64.0},
    "subcenter-arcface": {"proxies_per_class": 3, "margin": 28.6, "scale": 64.0},
    "proxy-anchor": {"alpha": 32.0, "delta": 0.1},
    "multi-similarity": {"alpha": 2.0, "beta": 50.0, "base": 0.5, "epsilon": 0.1},
    "supcon": {"temperature": 0.1},
    "triplet": {"margin": 0.2},
    "contrastive": {"positive": 0.0, "negative": 0.5},
}
CASES = covering((2, 3), list(SIZES), [*FAMILY, *BASELINES])
WRAPPED = "loss inside", "loss outside"


def make(name):
    torch.manual_seed(3)
    if name in FAMILY:
        return MultiProxyAnchorLoss(CLASSES, DIM, **FAMILY[name]).double()
    from polyanchor.losses.pml import pml_loss

    return pml_loss(name, CLASSES, DIM, **BASELINES[name]).double()


def problem(ranks, sizes):
    torch.manual_seed(1)
    counts = SIZES[sizes][:ranks]
    model = nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, DIM)).double()
    return model, torch.randn(sum(counts), WIDTH).double(), LABELS[: sum(counts)], counts


def mine(mesh, counts):
    rank = mesh.get_local_rank()
    return slice(sum(counts[:rank]), sum(counts[: rank + 1]))


def relative(got, want):
    return float((got - want).norm() / want.norm().clamp_min(1e-300))


def differences(mesh, sizes, name):
    """Relative errors of the loss and of every gradient, with the loss in DDP and beside it."""
    model, inputs, labels, counts = problem(mesh.size(), sizes)
    one = make(name)
    want = one(model(inputs), labels)
    gradients = torch.autograd.grad(2 * want, [*model.parameters(), *one.parameters()])  # 2: an upstream that is not 1

    here, found = mine(mesh, counts), {}
    for way in WRAPPED:
        module = Both(problem(mesh.size(), sizes)[0], DataParallelLoss(make(name), mesh))
        if way == "loss inside":
            data_parallel = DistributedDataParallel(module, process_group=mesh.get_group())
            value = data_parallel(inputs[here], labels[here])
        else:
            data_parallel = DistributedDataParallel(module.model, process_group=mesh.get_group())
            value = module.loss(data_parallel(inputs[here]), labels[here])
        (2 * value).backward()
        got = [parameter.grad for parameter in module.parameters()]
        found[way] = max(relative(*pair) for pair in zip([value.detach(), *got], [want, *gradients], strict=True))
    return found


class Both(nn.Module):
    """Model and loss as one module, as a trainer holds them."""

    def __init__(self, model, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, inputs, labels):
        return self.loss(self.model(inputs), labels)


def training_difference(mesh):
    """Four steps of AdamW with pieces, clipping and fixed lengths, against one process: model and proxies."""
    ends = []
    for ranks in (1, mesh.size()):
        model, inputs, labels, counts = problem(mesh.size(), "uneven")
        loss = make("data, K 3")
        if ranks > 1:
            here, loss = mine(mesh, counts), DataParallelLoss(loss, mesh)
            inputs, labels = inputs[here], labels[here]
            network = DistributedDataParallel(model, process_group=mesh.get_group())
        else:
            network = model
        parameters = [*model.parameters(), *loss.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.1)
        for _ in range(4):
            optimizer.zero_grad()
            loss(embed_in_micro_batches(network, inputs, 2), labels).backward()
            nn.utils.clip_grad_norm_(parameters, 0.3)
            with fixed_lengths(loss):
                optimizer.step()
        ends.append(parameters)
    return max(relative(*pair) for pair in zip(ends[1], ends[0], strict=True))


def half_precision(mesh):
    """dtype of proxies, their gradient and their moments under autocast, and how far the loss is from the wide one."""
    model, inputs, labels, counts = problem(mesh.size(), "uneven")
    here, module = mine(mesh, counts), Both(model.float(), DataParallelLoss(make("mixed, K 3").float(), mesh))
    data_parallel = DistributedDataParallel(module, process_group=mesh.get_group())
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = module.model(inputs[here].float()).dtype
        value = data_parallel(inputs[here].float(), labels[here])
    value.backward()
    optimizer.step()
    proxies = module.loss.proxies
    kept = [proxies, proxies.grad, *(optimizer.state[proxies][name] for name in ("exp_avg", "exp_avg_sq"))]
    wide = make("mixed, K 3")(problem(mesh.size(), "uneven")[0](inputs), labels)
    return [str(embeddings), sorted({str(each.dtype) for each in kept}), relative(value.detach(), wide.detach())]


def refusals(mesh):
    """What every rank is told."""
    loss = DataParallelLoss(make("class, K 1"), mesh)
    rows, labels = torch.randn(3, DIM).double(), torch.tensor([0, 1, 9 if mesh.get_local_rank() else 2])
    told = []
    for call in (lambda: loss(rows, labels), lambda: loss(rows[:0], labels[:0]), lambda: loss(rows, labels[:2])):
        try:
            call()
        except ValueError as error:
            told.append(str(error))
    return told


def everything():
    found = {}
    for ranks in (2, 3):
        mesh = DeviceMesh("cpu", list(range(ranks)))
        if dist.get_rank() < ranks:
            found |= {str(case): differences(mesh, *case[1:]) for case in CASES if case[0] == ranks}
            found[f"training {ranks}"] = training_difference(mesh)
            found[f"half {ranks}"] = half_precision(mesh)
            found[f"refusals {ranks}"] = refusals(mesh)
    return found


@pytest.fixture(scope="module")
def found():
    pytest.importorskip("pytorch_metric_learning", reason="extra: compare")
    return on_ranks(3, everything)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_and_gradients_are_those_of_one_process(found, case):
    errors = [rank[str(case)] for rank in found if str(case) in rank]
    assert len(errors) == case[0] and all(set(by_wrapping) == set(WRAPPED) for by_wrapping in errors)
    assert all(error < 1e-10 for by_wrapping in errors for error in by_wrapping.values()), errors


@pytest.mark.parametrize("ranks", [2, 3])
def test_steps_of_the_optimizer_are_those_of_one_process(found, ranks):
    assert max(rank[f"training {ranks}"] for rank in found[:ranks]) < 1e-10


@pytest.mark.parametrize("ranks", [2, 3])
def test_proxies_stay_wide_under_autocast_on_every_rank(found, ranks):
    for rank in found[:ranks]:
        embeddings, kept, error = rank[f"half {ranks}"]
        assert embeddings == "torch.bfloat16"
        assert kept == ["torch.float32"]
        assert error < 0.05  # bfloat16 has 8 bits, and alpha multiplies the cosines by 32


@pytest.mark.parametrize("ranks", [2, 3])
def test_every_rank_is_told_the_same(found, ranks):
    for rank in found[:ranks]:
        told = rank[f"refusals {ranks}"]
        assert "labels must be class numbers in [0, 5), got numbers from 0 to 9" in told[0]
        assert "got none on any of them" in told[1]
        assert "got 2 for 3" in told[2]


def test_a_process_group_is_asked_for():
    with pytest.raises(RuntimeError, match=r"init_process_group\(\) first"):
        DataParallelLoss(nn.Identity())

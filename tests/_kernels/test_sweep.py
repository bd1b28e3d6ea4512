"""Parts of the classes and parts of the rows, put together again, are the whole; and what the sweep holds."""

from itertools import product

import pytest
import torch
from torch import Tensor

from polyanchor._kernels import blocks
from polyanchor._kernels.blocks import Part
from polyanchor._kernels.options import Counts, LogSums, LossOptions
from polyanchor._kernels.sweep import sweep
from polyanchor.functional import multi_proxy_anchor_loss, unit_rows
from tests.covering import covering

ANCHORS = "class", "data", "mixed"


@pytest.fixture(autouse=True)
def _many_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_SCORES", 0)
    monkeypatch.setattr(blocks, "FEWEST_PROXIES", 6)


def problem(k: int, b: int = 17, c: int = 11) -> tuple[Tensor, Tensor, Tensor]:
    units = unit_rows(torch.randn(b, 5, dtype=torch.float64))
    return units, torch.randn(c, k, 5, dtype=torch.float64), torch.randint(c, (b,))


def eager(units: Tensor, proxies: Tensor, labels: Tensor, family: LossOptions) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients of the whole; the unit rows' is the one along the sphere."""
    x, p = units.clone().requires_grad_(), proxies.clone().requires_grad_()
    loss = multi_proxy_anchor_loss(x, p, labels, impl="eager", **vars(family))
    return loss.detach(), *torch.autograd.grad(loss, (x, p))


def along_the_sphere(to_units: Tensor, units: Tensor) -> Tensor:
    return to_units - (to_units * units).sum(1, keepdim=True) * units


def logaddexp(values: list[Tensor]) -> Tensor:
    return torch.stack(values).logsumexp(0)


@pytest.mark.parametrize(("anchor", "k", "alpha"), covering(ANCHORS, (1, 3), (16.0, 500.0)))
def test_parts_of_the_classes(anchor, k, alpha):
    units, proxies, labels = problem(k)
    family, counts = LossOptions(anchor=anchor, alpha=alpha), Counts.of(labels, len(proxies))
    parts = [Part(units, proxies[first:last].contiguous(), labels - first) for first, last in ((0, 4), (4, 5), (5, 11))]
    found = [sweep(part, family, counts, wants=(False, False)).sums for part in parts]

    def merge(own: LogSums) -> LogSums:  # the item-wise sums are shared
        pull = own.pull if family.pull_by_class else logaddexp([sums.pull for sums in found])
        push = own.push if family.push_by_class else logaddexp([sums.push for sums in found])
        return LogSums(pull, push)

    done = [sweep(part, family, counts, merge=None if anchor == "class" else merge) for part in parts]
    loss, to_units, to_proxies = eager(units, proxies, labels, family)
    torch.testing.assert_close(torch.cat([each.to_proxies for each in done]), to_proxies)
    torch.testing.assert_close(along_the_sphere(sum(each.to_units for each in done), units), to_units)
    pull = torch.cat([each.sums.pull for each in done]) if family.pull_by_class else done[0].sums.pull
    push = torch.cat([each.sums.push for each in done]) if family.push_by_class else done[0].sums.push
    torch.testing.assert_close(LogSums(pull, push).loss(family, counts), loss)


@pytest.mark.parametrize(("anchor", "k", "alpha"), covering(ANCHORS, (1, 3), (16.0, 500.0)))
def test_parts_of_the_rows(anchor, k, alpha):
    units, proxies, labels = problem(k)
    family, counts = LossOptions(anchor=anchor, alpha=alpha), Counts.of(labels, len(proxies))
    parts = [Part(units[rows], proxies, labels[rows]) for rows in (slice(0, 9), slice(9, 10), slice(10, 17))]
    found = [sweep(part, family, counts, wants=(False, False)).sums for part in parts]

    def merge(own: LogSums) -> LogSums:  # the class-wise sums are shared
        pull = logaddexp([sums.pull for sums in found]) if family.pull_by_class else own.pull
        push = logaddexp([sums.push for sums in found]) if family.push_by_class else own.push
        return LogSums(pull, push)

    done = [sweep(part, family, counts, merge=None if anchor == "data" else merge) for part in parts]
    loss, to_units, to_proxies = eager(units, proxies, labels, family)
    torch.testing.assert_close(sum(each.to_proxies for each in done), to_proxies)
    torch.testing.assert_close(along_the_sphere(torch.cat([each.to_units for each in done]), units), to_units)
    pull = done[0].sums.pull if family.pull_by_class else torch.cat([each.sums.pull for each in done])
    push = done[0].sums.push if family.push_by_class else torch.cat([each.sums.push for each in done])
    torch.testing.assert_close(LogSums(pull, push).loss(family, counts), loss)


@pytest.mark.parametrize("keep", [0, 2_000, 10**9])
def test_scores_may_be_kept_or_computed_twice(keep):
    """More rows than columns: the scores do not fit into the gradient's memory."""
    units, proxies, labels = problem(2)
    counts = Counts.of(labels, len(proxies))
    part, family = Part(units, proxies, labels), LossOptions(anchor="data")
    _, to_units, to_proxies = eager(units, proxies, labels, family)
    done = sweep(part, family, counts, keep=keep)
    torch.testing.assert_close(done.to_proxies, to_proxies)
    torch.testing.assert_close(along_the_sphere(done.to_units, units), to_units)


@pytest.mark.parametrize(("anchor", "k"), list(product(ANCHORS, (1, 3))))
def test_three_products_and_no_large_array(anchor, k):
    """Counts what is asked of torch: the products' sizes, and the largest array made besides the gradients."""
    units, proxies, labels = problem(k, b=4, c=40)
    part, counts = Part(units, proxies, labels), Counts.of(labels, len(proxies))
    products, made, gradient = 0, 0, proxies.numel() * 8

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal products, made
            out = func(*args, **(kwargs or {}))
            if func in (torch.ops.aten.mm.out, torch.ops.aten.addmm_.default):
                left, right = args[-2:]
                products += left.shape[0] * left.shape[1] * right.shape[1]
                if isinstance(out, Tensor) and out.untyped_storage().nbytes() != gradient:
                    made = max(made, out.untyped_storage().nbytes())
            return out

    with Watch():
        sweep(part, LossOptions(anchor=anchor), counts)
    assert products == 3 * len(units) * proxies.numel()
    assert made < 8 * len(units) * len(proxies) * k / 2

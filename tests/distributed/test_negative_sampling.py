"""A share of the negative classes: who takes part, what is right in expectation, what the optimizer touches."""

from itertools import combinations

import pytest
import torch
import torch.distributed as dist

from polyanchor.distributed import sharded_loss
from polyanchor.distributed.sharded_loss import Sample, ShardedMultiProxyAnchorLoss, draw_sample, step_samples
from polyanchor.losses.proxies import fixed_lengths

CLASSES, DIM = 9, 5
LABELS = torch.tensor([4, 2, 4, 7, 2])  # 6 classes are without items


@pytest.fixture(autouse=True)
def _alone_in_a_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def make(share, **options):
    torch.manual_seed(0)
    return ShardedMultiProxyAnchorLoss(
        CLASSES, DIM, proxies_per_class=2, negative_sample_rate=share, **options
    ).double()


def rows():
    return torch.randn(5, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()


def test_the_batchs_classes_always_take_part_and_the_share_of_the_others():
    seen = set()
    for seed in range(50):
        torch.manual_seed(seed)
        sample = draw_sample(torch.rand(CLASSES, 1, 2), LABELS, 0.5)
        assert sample.classes[: sample.own].tolist() == [2, 4, 7]
        drawn = sample.classes[sample.own :].tolist()
        assert len(set(drawn)) == 3 and not set(drawn) & {2, 4, 7} and sample.weight == 2
        seen |= set(drawn)
    assert seen == {0, 1, 3, 5, 6, 8}


@pytest.mark.parametrize("labels", [torch.arange(CLASSES), torch.tensor([99, -3])])
def test_all_or_none_of_the_classes_in_the_batch(labels):
    sample = draw_sample(torch.rand(CLASSES, 1, 2), labels, 0.5)
    assert (sample.own, len(sample.classes)) == ((9, 9) if len(labels) == CLASSES else (0, 5))


@pytest.mark.parametrize("anchor", ["class", "data", "mixed"])
def test_with_every_class_drawn_it_is_the_exact_loss(anchor):
    exact, sampled = make(1.0, anchor=anchor), make(0.999, anchor=anchor)
    left, right = rows(), rows()
    want, got = exact(left, LABELS), sampled(right, LABELS)
    want.backward(), got.backward()
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(right.grad, left.grad)
    to_proxies = torch.empty_like(sampled.sample.proxies.grad).new_zeros(CLASSES, 2, DIM)
    to_proxies[sampled.sample.classes] = sampled.sample.proxies.grad
    torch.testing.assert_close(to_proxies, exact.proxies.grad.to_local())
    assert sampled.proxies.grad is None


@pytest.mark.parametrize("anchor", ["class", "data", "mixed"])
def test_measuring_is_exact(anchor):
    assert make(0.3, anchor=anchor).eval()(rows(), LABELS) == make(1.0, anchor=anchor)(rows(), LABELS)


def over_all_draws(monkeypatch, anchor):
    """Loss, gradients of rows and proxies for each of the 15 draws of 4 of the 6 other classes."""
    found = []
    for drawn in combinations([0, 1, 3, 5, 6, 8], 4):
        classes = torch.tensor([2, 4, 7, *drawn])

        def draw(proxies, labels, share, classes=classes):
            return Sample(classes, 3, 1.5, proxies.detach()[classes].requires_grad_())

        monkeypatch.setattr(sharded_loss, "draw_sample", draw)
        loss, x = make(0.6, anchor=anchor, alpha=4.0), rows()
        value = loss(x, LABELS)
        value.backward()
        to_proxies = torch.zeros(CLASSES, 2, DIM, dtype=torch.float64)
        to_proxies[classes] = loss.sample.proxies.grad
        found.append((value.detach(), x.grad, to_proxies))
    return [torch.stack(each) for each in zip(*found, strict=True)]


def test_the_class_wise_push_is_right_in_expectation(monkeypatch):
    exact, x = make(1.0, anchor="class", alpha=4.0), rows()
    value = exact(x, LABELS)
    value.backward()
    means = [each.mean(0) for each in over_all_draws(monkeypatch, "class")]
    for got, want in zip(means, (value.detach(), x.grad, exact.proxies.grad.to_local()), strict=True):
        torch.testing.assert_close(got, want)


def test_the_item_wise_push_is_right_inside_of_its_logarithm_and_a_little_small_outside(monkeypatch):
    x = rows().detach()[:1]
    x, own = x.expand(5, DIM).contiguous().requires_grad_(), torch.full((5,), 4)  # equal items: one logarithm

    def push(value):
        pull = torch.log1p(torch.exp(-4 * (pooled[0, 4] - 0.1)))
        return value - pull

    from polyanchor.functional import class_similarity

    exact = make(1.0, anchor="data", alpha=4.0)
    pooled = class_similarity(x.detach(), exact.proxies.to_local().detach())
    want, found = push(exact(x, own).detach()), []
    for drawn in combinations([0, 1, 2, 3, 5, 6, 7, 8], 4):
        classes = torch.tensor([4, *drawn])
        monkeypatch.setattr(
            sharded_loss,
            "draw_sample",
            lambda proxies, *_, classes=classes: Sample(classes, 1, 2.0, proxies.detach()[classes].requires_grad_()),
        )
        found.append(push(make(0.5, anchor="data", alpha=4.0)(x, own).detach()))
    values = torch.stack(found)
    torch.testing.assert_close(values.exp().mean(), want.exp())
    assert 0.9 * want < values.mean() < want


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_a_step_touches_the_drawn_proxies_alone(optimizer):
    """The witness: the same optimizer on each class alone, which steps when the class is drawn."""
    options = {"lr": 0.1, "weight_decay": 0.1} | ({"momentum": 0.9} if optimizer is torch.optim.SGD else {})
    loss = make(0.3, anchor="mixed")
    whole = optimizer(loss.parameters(), **options)
    handle = step_samples(loss, whole)
    alone = [torch.nn.Parameter(each.clone()) for each in loss.proxies.to_local().detach()]
    theirs = [optimizer([each], **options) for each in alone]
    for number in range(4):
        whole.zero_grad()
        loss(rows(), LABELS).backward()
        sample = loss.sample
        for place, number_of_class in enumerate(sample.classes.tolist()):
            alone[number_of_class].grad = sample.proxies.grad[place].clone()
            state = theirs[number_of_class].state[alone[number_of_class]]
            if "step" in state:
                state["step"].fill_(number)  # the count is one for all
            elif optimizer is torch.optim.AdamW and number:
                zeros = torch.zeros_like(alone[number_of_class])
                state |= {"step": torch.tensor(float(number)), "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
            theirs[number_of_class].step()
        whole.step()
        assert loss.sample is None
        torch.testing.assert_close(loss.proxies.to_local().detach(), torch.stack([each.detach() for each in alone]))
    handle.remove()
    before = loss.proxies.to_local().detach().clone()
    loss(rows(), LABELS).backward()
    whole.step()
    assert torch.equal(loss.proxies.to_local(), before)


def test_lengths_stay_where_they_are_to_stay():
    loss = make(0.3)
    optimizer = torch.optim.AdamW(loss.parameters(), lr=0.1)
    step_samples(loss, optimizer)
    before = loss.proxies.to_local().detach().clone()
    loss(rows(), LABELS).backward()
    with fixed_lengths(loss):
        optimizer.step()
    after = loss.proxies.to_local().detach()
    assert not torch.equal(after, before)
    torch.testing.assert_close(after.norm(dim=2), before.norm(dim=2))


def test_a_seed_decides_the_draws():
    drawn = []
    for _ in range(2):
        loss = make(0.5)
        torch.manual_seed(3)
        loss(rows(), LABELS)
        drawn.append(loss.sample.classes.tolist())
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("share", [0, -1, 1.1, float("nan")])
def test_bad_shares(share):
    with pytest.raises(ValueError, match=r"negative_sample_rate must lie in \(0, 1\]"):
        make(share)


def test_merging_is_over_all_proxies():
    with pytest.raises(ValueError, match="center_reg is a mean over all proxies"):
        make(0.5, center_reg=1.0)

"""Answers that arrive later: a ticket by hand stands in for the device's event."""

import copy

import pytest
import torch

from polyanchor import MultiProxyAnchorLoss
from polyanchor._kernels import LossOptions
from polyanchor.functional import multi_proxy_anchor_loss
from polyanchor.functional.multi_proxy_anchor import batch_is_usable, guarded_loss
from polyanchor.losses.async_checks import AsyncChecks


class Ticket:
    def __init__(self):
        self.done = False

    def query(self):
        return self.done

    def synchronize(self):
        self.done = True


@pytest.fixture
def tickets():
    return []


@pytest.fixture
def checks(tickets):
    def ticket(device):
        tickets.append(Ticket())
        return tickets[-1]

    return AsyncChecks(ticket)


def test_nothing_is_raised_before_the_answer_is_there(checks, tickets):
    checks.enqueue(torch.ones(2, 3), torch.tensor([0, 7]), 5, torch.zeros(()))
    checks.poll()
    tickets[0].done = True
    with pytest.raises(ValueError, match=r"\[0, 5\), got numbers from 0 to 7.*call 1 of this loss, 0 before"):
        checks.poll()
    checks.poll()  # said once


def test_good_batches_pass_and_a_later_bad_one_is_named(checks, tickets):
    for value in (1.0, 1.0, torch.nan):
        checks.enqueue(torch.full((2, 3), value), torch.tensor([0, 1]), 5, torch.zeros(()))
    checks.enqueue(torch.ones(2, 3), torch.tensor([0, 1]), 5, torch.zeros(()))
    for ticket in tickets[:2]:
        ticket.done = True
    checks.poll()
    with pytest.raises(ValueError, match=r"NaN or infinity.*call 3 of this loss, 1 before"):
        checks.poll(wait=True)


def test_proxies_that_are_not_finite_are_told_from_their_loss(checks):
    checks.enqueue(torch.ones(2, 3), torch.tensor([0, 1]), 5, torch.tensor(torch.nan))
    with pytest.raises(ValueError, match=r"proxies must be finite.*call 1 of this loss"):
        checks.poll(wait=True)


def test_a_copy_waits_for_nothing(checks):
    checks.enqueue(torch.ones(1, 1), torch.tensor([9]), 5, torch.zeros(()))
    copy.deepcopy(checks).poll(wait=True)


class CapturedTicket(Ticket):
    """As CUDA has it: a look at an event breaks the capture off."""

    def query(self):
        if torch.cuda.is_initialized():
            raise RuntimeError("operation not permitted when stream is capturing")
        return super().query()

    synchronize = query


def test_nothing_is_looked_at_while_a_cuda_graph_is_captured(monkeypatch):
    made = []

    def ticket(device):
        made.append(CapturedTicket())
        made[-1].query()
        return made[-1]

    loss = MultiProxyAnchorLoss(5, 3)
    loss._checks = checks = AsyncChecks(ticket)
    checks.enqueue(torch.ones(2, 3), torch.tensor([0, 7]), 5, torch.zeros(()))
    made[0].done = True
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    loss(torch.ones(2, 3), torch.tensor([0, 1]))
    checks.enqueue(torch.ones(2, 3), torch.tensor([0, 8]), 5, torch.zeros(()))
    loss.check()
    assert len(made) == 1  # what is captured runs without Python: nobody would look at its answer
    monkeypatch.undo()
    with pytest.raises(ValueError, match="from 0 to 7"):
        loss(torch.ones(2, 3), torch.tensor([0, 1]))


def test_torch_compile_and_transforms_leave_the_tickets_alone(checks, tickets):
    x, y = torch.randn(2, 3), torch.tensor([0, 1])

    def watched(rows):
        checks.enqueue(rows, y, 5, rows.sum())
        checks.poll()
        return rows.square().sum()

    torch.testing.assert_close(torch.compile(watched, backend="eager", fullgraph=True)(x), x.square().sum())
    torch.testing.assert_close(torch.func.grad(watched)(x), 2 * x)
    torch.testing.assert_close(torch.vmap(watched)(x[None]), x.square().sum()[None])
    assert not tickets


@pytest.mark.parametrize("bad", ["label", "nan"])
def test_a_bad_batch_on_a_device_gives_nan_and_zero_gradients(bad):
    """The branch for accelerators, run on the CPU: the device's name is all that differs."""
    x, p, y = torch.randn(3, 4), torch.randn(5, 2, 4, requires_grad=True), torch.tensor([0, 1, 2])
    if bad == "label":
        y[1] = 5
    else:
        x[1, 1] = torch.nan
    x.requires_grad_()
    usable = batch_is_usable(x, y, 5)
    assert not usable
    loss = guarded_loss(x, p, y, LossOptions())
    loss.backward()
    assert loss.isnan()
    assert x.grad.eq(0).all()
    assert p.grad.eq(0).all()


def test_a_good_batch_on_a_device_gives_the_same_as_on_the_cpu():
    x, p, y = torch.randn(3, 4), torch.randn(5, 2, 4), torch.tensor([0, 1, 2])
    got = guarded_loss(x, p, y, LossOptions(anchor="data"))
    assert got == multi_proxy_anchor_loss(x, p, y, anchor="data")

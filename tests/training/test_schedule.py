"""Schedules against torch's own."""

import pytest
import torch

from polyanchor.config.schema import Optim
from polyanchor.training.module import schedule_factor

STEPS, EPOCHS = 7, 9


def ours(optim):
    return [schedule_factor(s, steps_per_epoch=STEPS, epochs=EPOCHS, optim=optim) for s in range(STEPS * EPOCHS)]


def torchs(make):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, seen = make(optimizer), []
    for _ in range(STEPS * EPOCHS):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_cosine():
    want = torchs(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS * EPOCHS))
    assert ours(Optim(schedule="cosine")) == pytest.approx(want)


def test_step():
    want = torchs(lambda o: torch.optim.lr_scheduler.StepLR(o, 2 * STEPS, 0.25))
    assert ours(Optim(schedule="step", step_epochs=2, step_factor=0.25)) == pytest.approx(want)


def test_one_cycle():
    total = STEPS * EPOCHS
    want = torchs(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1.0, total_steps=total + 1, cycle_momentum=False))
    # torch puts the peak at 0.3 total - 1 steps, ours at 0.3 total: the same curve, up to one step's shift
    assert ours(Optim(schedule="one-cycle")) == pytest.approx(want, abs=0.08)
    assert max(ours(Optim(schedule="one-cycle"))) > 0.99


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle", "step"])
def test_warm_up_is_at_full_rate_and_the_schedule_covers_the_rest(schedule):
    warm = ours(Optim(schedule=schedule, warmup_epochs=2, step_epochs=1))
    assert warm[: 2 * STEPS] == [1.0] * (2 * STEPS)
    rest = Optim(schedule=schedule, step_epochs=1)
    shorter = [
        schedule_factor(s, steps_per_epoch=STEPS, epochs=EPOCHS - 2, optim=rest) for s in range(STEPS * (EPOCHS - 2))
    ]
    assert warm[2 * STEPS :] == pytest.approx(shorter)

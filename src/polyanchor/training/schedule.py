"""Learning-rate factors as pure functions of the step, so that resuming has nothing to restore."""

from __future__ import annotations

import math

from polyanchor.training.config import Optim


def factor(step: int, *, steps_per_epoch: int, epochs: int, optim: Optim) -> float:
    """What every group's learning rate is multiplied by in the given step.

    During the warm-up epochs 1. After them, with t from 0 to 1 over what is left: ``constant`` 1; ``cosine``
    from 1 to 0; ``one-cycle`` from 1/25 up to 1 over the first 30 %, then down to 0, both as half cosines (Smith
    and Topin 2018, in the form that became usual); ``step`` multiplied by ``step_factor`` every ``step_epochs``.

    Args:
        step: optimizer step, from 0.
        steps_per_epoch: batches in an epoch.
        epochs: epochs in all, warm-up included.
        optim: the schedule and its parameters.

    Example:
        >>> one_cycle = Optim(schedule="one-cycle")
        >>> [round(factor(s, steps_per_epoch=10, epochs=10, optim=one_cycle), 2) for s in (0, 30, 99)]
        [0.04, 1.0, 0.0]
    """
    warm = optim.warmup_epochs * steps_per_epoch
    if step < warm or optim.schedule == "constant":
        return 1.0
    if optim.schedule == "step":
        return optim.step_factor ** ((step - warm) // (optim.step_epochs * steps_per_epoch))
    t = min(1.0, (step - warm) / max(1, epochs * steps_per_epoch - warm))
    if optim.schedule == "cosine":
        return _half_cosine(t)
    rise = 0.3
    if t < rise:
        return 1 / 25 + (1 - 1 / 25) * (1 - _half_cosine(t / rise))
    return _half_cosine((t - rise) / (1 - rise))


def _half_cosine(t: float) -> float:
    return (1 + math.cos(math.pi * t)) / 2

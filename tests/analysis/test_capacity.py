"""The callback: its numbers against autograd's, and a training that does not notice it."""

import pytest
import torch

from polyanchor.analysis import capacity
from polyanchor.analysis.capacity import Capacity, TrainingBatches, capacity_of
from polyanchor.analysis.gradients import Strength
from polyanchor.config.builders import make_model, make_transforms, open_parts
from polyanchor.config.schema import LOSSES
from polyanchor.runs.folder import RunFolder
from polyanchor.training.train import fit
from tests.tiny_runs import config


def made(photos, folder, *, measured=True, loss="multi-proxy-anchor"):
    chosen = config(photos, "run.epochs=2", "data.val_share=0", "run.threads=1")
    chosen = chosen.model_copy(update={"loss": LOSSES[loss](name=loss)})
    items = open_parts(chosen).train
    callbacks = []
    if measured:
        view = make_transforms(chosen, make_model(chosen, items).statistics)[0]
        callbacks = [Capacity(TrainingBatches(chosen, items, view, items.classes, count=3))]
    fitted = fit(chosen, RunFolder(folder), callbacks=callbacks)
    return fitted, callbacks


def test_capacity_by_hand():
    norm = torch.tensor([0.0, 0.5, 1.5, 6.0], dtype=torch.float64)
    found = Strength(norm * 2, norm * 3, norm, norm / 2, norm.flip(0))
    alone = capacity_of(found)
    assert alone["usable"] == 0.75  # above 0.01 x 2
    assert (alone["mean"], alone["pull"], alone["push"]) == (2, 4, 6)
    later = capacity_of(found, first=100.0)  # the threshold is 1
    assert (later["usable"], later["usable_pull"], later["usable_push"]) == (0.5, 0.25, 0.5)
    assert later["quantiles"] == pytest.approx([0.15, 1.0, 4.65])


@pytest.mark.slow
def test_training_goes_on_as_if_it_were_not_there(photos, tmp_path):
    with_it, callbacks = made(photos, tmp_path / "with")
    without, _ = made(photos, tmp_path / "without", measured=False)
    assert [row["epoch"] for row in callbacks[0].rows] == [1, 2]
    assert with_it.epochs == without.epochs
    theirs = without.learner.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in with_it.learner.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["multi-proxy-anchor", "triplet"])
def test_the_last_row_is_autograds_gradient_of_the_finished_model(photos, tmp_path, loss, monkeypatch):
    monkeypatch.setattr(capacity, "USABLE", 0.5)  # so many items are on either side
    fitted, callbacks = made(photos, tmp_path / "run", loss=loss)
    lengths = []
    for embeddings, labels in callbacks[0].batches.embedded(fitted.learner.model):
        x = torch.nn.functional.normalize(embeddings.double()).requires_grad_()
        (gradient,) = torch.autograd.grad(fitted.learner.loss.double()(x, labels), x)
        along = gradient - (gradient * x).sum(dim=1, keepdim=True) * x
        lengths.append(len(x) * along.detach().norm(dim=1))
    lengths = torch.cat(lengths)
    rows = callbacks[0].rows
    assert rows[-1]["mean"] == pytest.approx(float(lengths.mean()), rel=1e-4)
    want = float((lengths > 0.5 * rows[0]["mean"]).double().mean())
    assert rows[-1]["usable"] == pytest.approx(want)
    assert 0 < want < 1
    assert len(lengths) == 18


def test_the_batches_are_always_the_same(photos, tmp_path):
    fitted, callbacks = made(photos, tmp_path / "run")
    batches, model = callbacks[0].batches, fitted.learner.model.train()
    state = torch.get_rng_state()
    first, second = (list(batches.embedded(model)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert len(first) == 3
    for (x, labels), (again, same) in zip(first, second, strict=True):
        assert torch.equal(x, again)
        assert torch.equal(labels, same)
        assert labels.max() < 4

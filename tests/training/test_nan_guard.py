"""Training that meets NaN: it stops before the weights do, and the batch is kept as the network saw it."""

import json

import pytest
import torch
from safetensors import safe_open

from polyanchor._check import NotFiniteError
from polyanchor.cli.app import run
from polyanchor.config.builders import make_loss, make_model
from polyanchor.losses.base import EmbeddingLoss
from polyanchor.runs.folder import RunFolder
from polyanchor.training.nan_guard import DivergedError, FiniteSteps
from polyanchor.training.train import train
from tests.compare import features
from tests.tiny_runs import arguments, config


def nan_loss(embeddings):
    return embeddings.sum() * float("nan")


def infinite_loss(embeddings):
    return embeddings.sum().detach() * 0 + float("inf")


def nan_gradient(embeddings):
    """The loss is 0 more; its gradient is 0 times infinity."""
    total = embeddings.sum()
    return (total - total.detach()).sqrt()


class Failing(EmbeddingLoss):
    """A loss that goes wrong at one of its calls."""

    def __init__(self, loss, harm, call):
        super().__init__()
        self.loss, self.harm, self.call = loss, harm, call

    @property
    def proxies(self):
        return self.loss.proxies

    def forward(self, embeddings, labels):
        self.call -= 1
        return self.loss(embeddings, labels) + (self.harm(embeddings) if self.call == 0 else 0)


@pytest.fixture
def failing(monkeypatch):
    """Train with a loss that goes wrong at a call; gives what the network saw in each step."""
    seen = []

    def prepare(harm, call):
        def model(config, items):
            made = make_model(config, items)
            made.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]) if module.training else None)
            return made

        monkeypatch.setattr("polyanchor.training.train.make_model", model)
        monkeypatch.setattr(
            "polyanchor.training.train.make_loss",
            lambda *args, **options: Failing(make_loss(*args, **options), harm, call),
        )
        return seen

    return prepare


@pytest.mark.parametrize("harm", [nan_loss, infinite_loss, nan_gradient])
@pytest.mark.parametrize("name", ["multi-proxy-anchor", "arcface", "triplet"])
def test_it_stops_with_the_batch_saved_and_named(photos, tmp_path, failing, harm, name):
    of = config(photos, "run.epochs=2", f"loss.name={name}") if name == "multi-proxy-anchor" else None
    of = of or features_of_images(photos, name)
    folder = RunFolder(tmp_path / "run")
    seen = failing(harm, call=4)  # two steps an epoch: the second step of the second epoch
    with pytest.raises(DivergedError) as raised:
        train(of, folder.path)
    said = str(raised.value)
    what = "a gradient" if harm is nan_gradient else "the loss"
    assert said.startswith(f"epoch 2, step 2: {what} is NaN or infinite. Its batch of 6 (class")
    assert f"is in {folder.not_finite}. {folder.last} is from before it." in said
    with safe_open(folder.not_finite, "pt") as file:
        names = json.loads(file.metadata()["names"])
        assert (file.metadata()["epoch"], file.metadata()["step"]) == ("2", "2")
        assert torch.equal(file.get_tensor("inputs"), seen[3].contiguous())
        assert [int(name[5]) for name in names] == file.get_tensor("labels").tolist()  # class3/4.png
    assert names[0] in said
    kept = torch.load(folder.last, weights_only=True)
    assert kept["epoch"] == 0
    assert all(tensor.isfinite().all() for tensor in kept["state_dict"].values())


def features_of_images(photos, name):
    from polyanchor.config.loading import load_config
    from tests.tiny_runs import settings

    own = [setting for setting in settings(photos) if not setting.startswith("loss.")]
    return load_config(settings=[*own, "run.epochs=2", f"loss.name={name}"])


def test_an_accelerator_is_asked_later_and_before_a_checkpoint(photos, tmp_path, failing, monkeypatch):
    """As there: two steps go by before anybody looks, and the one that is named is the one that failed."""
    monkeypatch.setattr(FiniteSteps, "on_train_start", lambda self, trainer, module: setattr(self, "_every", 20))
    folder = RunFolder(tmp_path / "run")
    failing(nan_loss, call=3)
    with pytest.raises(DivergedError, match="epoch 2, step 1: the loss is NaN"):
        train(config(photos, "run.epochs=2"), folder.path)
    assert torch.load(folder.last, weights_only=True)["epoch"] == 0  # that of the second epoch was not written


def test_rates_that_blow_up_the_weights(tmp_path):
    """Nothing patched: the loss itself finds the NaN, in the embeddings."""
    vectors = features.write(tmp_path / "v.safetensors")
    of = features.config(vectors, "optim.lr=1e30", "optim.schedule=constant", "optim.clip=none", "data.val_share=0")
    with pytest.raises(NotFiniteError, match=r"epoch 1, step 3: .* Its batch of 16 \(\d+, \d+, \d+, ...\) is in"):
        train(of, tmp_path / "run")
    assert (tmp_path / "run" / "not_finite.safetensors").is_file()


def test_nan_after_an_epoch_is_said_without_a_batch(tmp_path, monkeypatch):
    def broken(*given, **options):
        raise NotFiniteError("embeddings must be finite")

    monkeypatch.setattr("polyanchor.training.train.evaluate_items", broken)
    with pytest.raises(DivergedError, match=r"^after epoch 1: embeddings must be finite. Resuming comes to the same"):
        train(features.config(features.write(tmp_path / "v.safetensors")), tmp_path / "run")


def test_half_precision_steps_may_overflow():
    """The gradient scaler leaves such a step out and lowers its scale; only the loss is looked at."""

    class Trainer:
        class precision_plugin:  # noqa: N801  (an attribute's name of Lightning's)
            scaler = object()

    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.full((1,), float("inf"))
    FiniteSteps(None, None, None).on_before_optimizer_step(Trainer, None, torch.optim.SGD([parameter]))


def test_on_the_command_line_it_is_one_message_and_exit_code_1(photos, tmp_path, failing, capsys):
    failing(nan_loss, call=1)
    assert run(["train", *arguments(photos, "run.epochs=1"), "--out", str(tmp_path / "run")]) == 1
    err = capsys.readouterr().err
    assert "polyanchor: epoch 1, step 1: the loss is NaN or infinite" in err
    assert "Traceback" not in err and "last.ckpt" not in err

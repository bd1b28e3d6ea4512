"""What a run starts from, and that it never keeps weights that are worse on held-out classes."""

import json
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from polyanchor.config.builders import embed_options, open_parts
from polyanchor.config.loading import load_config
from polyanchor.datasets.items import Items
from polyanchor.distributed.comm import Ranks
from polyanchor.distributed.sharded_loss import ShardedMultiProxyAnchorLoss
from polyanchor.losses.multi_proxy_anchor import MultiProxyAnchorLoss
from polyanchor.losses.pml import pml_loss
from polyanchor.metrics.retrieval import evaluate_retrieval
from polyanchor.models.embedding import EmbeddingModel
from polyanchor.runs.folder import RunFolder
from polyanchor.runs.load import evaluate_run, open_trained
from polyanchor.training.start import Start, choose_weights, set_reduction, start_proxies
from polyanchor.training.stopping import Interrupted
from polyanchor.training.train import train
from tests.compare import features
from tests.tiny_runs import config
from tests.training.test_train import StopAfter, same_run

RECIPE = ["model.head=none", "model.neck=center", "model.freeze_bn=true", "optim.proxy_start=items"]


def items():
    """Class 3 has one item, class 5 four, class 9 six; in no order."""
    labels = torch.tensor([9, 5, 9, 3, 5, 9, 9, 5, 9, 5, 9])
    return Items(torch.randn(11, 6, generator=torch.Generator().manual_seed(1)), labels)


def losses():
    yield MultiProxyAnchorLoss(3, 4, proxies_per_class=4)
    yield MultiProxyAnchorLoss(3, 4, proxies_per_class=4, init="kaiming")
    yield ShardedMultiProxyAnchorLoss(3, 4, proxies_per_class=4)
    pytest.importorskip("pytorch_metric_learning", reason="extra: compare")
    yield pml_loss("softtriple", 3, 4, proxies_per_class=4, margin=0.01, scale=20.0, gamma=0.1)


def test_each_proxy_starts_at_another_item_of_its_class():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model, data = EmbeddingModel(None, features=6, embedding_dim=4), items()
        embeddings, starts = model(data.inputs).detach(), []
        for loss in losses():
            before = loss.full_proxies().norm(dim=-1)
            start_proxies(loss, model, data, seed=3, options={"transform": None})
            proxies = loss.full_proxies()
            torch.testing.assert_close(proxies.norm(dim=-1), before)
            cosines = torch.einsum("ckd,nd->ckn", torch.nn.functional.normalize(proxies, dim=-1), embeddings)
            for number, (label, count) in enumerate({3: 1, 5: 4, 9: 6}.items()):
                own = cosines[number].masked_fill(data.labels != label, -2)
                nearest = own.argmax(1)
                assert len(nearest.unique()) == min(count, 4)
                assert int((own.amax(1) > 1 - 1e-5).sum()) == min(count, 4)
                assert own.amax(1).min() > 0.85  # further ones are near it, but not at it
            starts.append(torch.nn.functional.normalize(proxies, dim=-1))
        for other in starts[1:]:
            torch.testing.assert_close(other, starts[0])
    finally:
        dist.destroy_process_group()


def test_the_classes_may_be_taken_in_pieces(monkeypatch):
    model, data = EmbeddingModel(None, features=6, embedding_dim=4), items()
    data = data.subset(data.labels != 3)
    whole, parts = (MultiProxyAnchorLoss(2, 4, proxies_per_class=3) for _ in range(2))
    start_proxies(whole, model, data, seed=0, options={"transform": None})
    monkeypatch.setattr("polyanchor.training.start._CHUNK", 3)
    start_proxies(parts, model, data, seed=0, options={"transform": None})
    torch.testing.assert_close(parts.proxies, whole.proxies)


def chosen(values, points=(0, 0.5, 1), head="none", trained=0.5):
    """The choice where the only weight goes from 2 to 4, and validation says ``values[weight]``."""
    model = torch.nn.Linear(1, 1, bias=False)
    model.reduction = None
    start = Start({"weight": torch.tensor([[2.0]])}, {}, {})
    with torch.no_grad():
        model.weight.fill_(4)

    def validate(model):
        return SimpleNamespace(means={"map@r": values[float(model.weight)]})

    learner = SimpleNamespace(model=model, validate=None if trained is None else validate)
    of = load_config(settings=[f"run.interpolate={list(points)}", f"model.head={head}", "run.accelerator=cpu"])
    said = []
    choice = choose_weights(of, learner, start, trained, lambda model: None, announce=said.append)
    return choice.point, choice.validation, float(model.weight), len(said)


def test_the_best_point_of_the_line_is_kept_and_of_equal_ones_the_later():
    assert chosen({2: 0.1, 3: 0.2}) == (1, 0.5, 4, 0)
    assert chosen({2: 0.1, 3: 0.6}) == (0.5, 0.6, 3, 1)
    assert chosen({2: 0.7, 3: 0.6}) == (0, 0.7, 2, 1)
    assert chosen({2: 0.5, 3: 0.5}) == (1, 0.5, 4, 0)
    assert chosen({2: 0.6, 3: 0.6}) == (0.5, 0.6, 3, 1)
    assert chosen({2: 0.1, 3: 0.9}, head="linear") == (1, 0.5, 4, 0)
    assert chosen({2: 0.7}, head="linear") == (0, 0.7, 2, 1)
    assert chosen({3: 0.1}, points=[0.5]) == (0.5, 0.1, 3, 1)
    assert chosen({2.5: 0.6, 3.5: 0.4}, points=[0.25, 0.75, 1]) == (0.25, 0.6, 2.5, 1)
    assert chosen({}, trained=None) == (1, None, 4, 0)
    assert chosen({}, points=[0.5, 0], trained=None) == (0.5, None, 3, 1)


def test_each_point_is_judged_as_it_would_be_kept(tmp_path):
    """The weights that are best as they are are not when reduced; the number that is said is that of the model."""
    model = EmbeddingModel(torch.nn.Linear(3, 4), features=4, embedding_dim=4, neck="center", head="none")
    start = Start({name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}, {}, {})
    seen = []

    def validate(model):
        seen.append((model.reduction is not None, bool(model.backbone.weight.any())))
        return SimpleNamespace(means={"map@r": 0.3 if model.backbone.weight.any() else 0.4})

    def reduce(model):
        model.reduction = torch.nn.Linear(4, 2)

    learner = SimpleNamespace(model=model, validate=validate)
    of = load_config(settings=["run.interpolate=[0, 1]", "model.head=none", "run.accelerator=cpu"])
    said = []
    choice = choose_weights(of, learner, start, 0.9, reduce, announce=said.append)
    assert (choice.point, choice.validation) == (0, 0.4) and model.embedding_dim == 2
    assert seen == [(True, True), (True, False)]
    assert said == ["keeping   the start's weights, cut from 4 to 2 columns: map@r 0.4000 on validation classes"]


def test_a_training_that_harms_keeps_the_start(tmp_path):
    """Against scikit-learn's principal components of the training items, and this package's measures."""
    decomposition = pytest.importorskip("sklearn.decomposition", reason="extra: dev")
    vectors, said = features.write(tmp_path / "v.safetensors"), []
    of = features.config(vectors, "optim.lr=30", "run.epochs=1", "optim.renormalize_proxies=false", "optim.clip=none")
    report = train(of, tmp_path / "run", announce=said.append)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["point"] == 0 and "the start, as no epoch was better" in results["chosen_by"]
    assert any(line.startswith("keeping   the start's weights: map@r ") for line in said)
    parts = open_parts(of)
    fitted = decomposition.PCA(6, svd_solver="full").fit(parts.train.inputs.numpy())
    want = torch.from_numpy(fitted.transform(parts.split.test.inputs.numpy()))
    means = evaluate_retrieval(want, parts.split.test.labels, k=[1, 2]).means
    assert report.means == pytest.approx(means, abs=1e-6)


def test_the_features_before_training_are_measured_as_they_are_centred_and_reduced(tmp_path):
    decomposition = pytest.importorskip("sklearn.decomposition", reason="extra: dev")
    of = features.config(features.write(tmp_path / "v.safetensors"), "run.epochs=1")
    train(of, tmp_path / "run")
    parts, results = open_parts(of), json.loads((tmp_path / "run" / "results.json").read_text())
    mean = parts.train.inputs.mean(0)
    unit = torch.nn.functional.normalize
    fitted = decomposition.PCA(6, svd_solver="full").fit(unit(parts.train.inputs - mean).numpy())
    for part, shown in ((parts.split.test, results["before"]), (parts.validation, results["validation_before"])):
        forms = {"features": part.inputs, "centred": part.inputs - mean}
        forms["reduced"] = torch.from_numpy(fitted.transform(unit(part.inputs - mean).numpy()))
        assert list(shown) == list(forms)
        for form, vectors in forms.items():
            means = evaluate_retrieval(vectors, part.labels, k=[1, 2]).means
            if part is parts.validation:
                assert shown[form] == pytest.approx(means["map@r"], abs=1e-6)
            else:
                assert shown[form]["means"] == pytest.approx(means, abs=1e-6)


def test_what_was_measured_before_is_left_out_on_request(tmp_path):
    of = features.config(features.write(tmp_path / "v.safetensors"), "run.epochs=1", "run.before=false")
    train(of, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["before"] == {}
    assert not RunFolder(tmp_path / "run").before.exists()


@pytest.mark.slow
def test_without_a_head_the_run_ends_reduced_and_every_reader_of_it_agrees(photos, tmp_path):
    report = train(config(photos, "run.epochs=1", *RECIPE), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    reduced, whole = (open_trained(folder.path, reduced=reduced) for reduced in (True, False))
    assert (whole.model.embedding_dim, reduced.model.embedding_dim) == (96, 8)
    assert reduced.proxies.shape == (2, 2, 8) and whole.proxies.shape == (2, 2, 96)
    assert evaluate_run(folder.path).means == report.means
    held = json.loads(folder.results.read_text())["validation"]["map@r"]
    assert evaluate_run(folder.path, split="validation").means["map@r"] == held
    assert folder.load_model().embedding_dim == 8
    options = embed_options(whole.config, whole.model.statistics)
    set_reduction(whole.config, whole.model, open_parts(whole.config).train, options=options, ranks=Ranks())
    torch.testing.assert_close(whole.model.reduction.weight, reduced.model.reduction.weight)


@pytest.mark.slow
@pytest.mark.parametrize("neck", ["center", "batchnorm", "layernorm"])
def test_a_resumed_run_is_the_uninterrupted_one(photos, tmp_path, neck):
    of = config(photos, "run.epochs=2", *RECIPE[:1], f"model.neck={neck}", *RECIPE[2:])
    train(of, tmp_path / "one")
    with pytest.raises(Interrupted):
        train(of, tmp_path / "two", stop=StopAfter(2))
    train(of, tmp_path / "two", resume=True)
    same_run(tmp_path / "one", tmp_path / "two")
    models = [RunFolder(tmp_path / name).read_model()[1] for name in ("one", "two")]
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())


def test_vectors_without_a_head_have_nothing_to_train(tmp_path):
    of = features.config(features.write(tmp_path / "v.safetensors"), "model.head=none")
    with pytest.raises(ValueError, match="vectors without a head leave nothing to train; set model.head to 'pca'"):
        train(of, tmp_path / "run")

"""A run's folder of local centres, made of a run on vectors whose sub-classes are known."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from polyanchor.analysis.proxies import study_proxies
from polyanchor.analysis.proxy_report import extremes, report_proxies
from polyanchor.config.loading import load_config
from polyanchor.runs.load import open_trained
from polyanchor.training.train import train
from polyanchor.types import Embeddings

FIGURES = "centres.svg", "centres.png", "agreement.svg", "agreement.png"


@pytest.fixture
def run(tmp_path):
    """Classes 10, 11, 12 with two sub-classes each, all in training; the test part holds 10 and 99."""
    generator = np.random.default_rng(0)
    sub = np.concatenate([np.repeat(np.arange(6), 12), np.repeat([0, 9], 6)])
    labels = np.where(sub == 9, 99, 10 + sub // 2)
    vectors = np.eye(8)[np.minimum(sub, 7)] + 0.1 * generator.normal(size=(84, 8))
    np.savez(
        tmp_path / "v.npz",
        vectors=vectors.astype(np.float32),
        labels=labels,
        sublabels=sub,
        split=np.r_[np.zeros(72, dtype=int), np.ones(12, dtype=int)],
        names=np.array([f"row{row}" for row in range(84)]),
    )

    def made(*changes):
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        fixed = [f"data.source=features:{tmp_path / 'v.npz'}", "data.val_share=0", "run.epochs=1", "run.k=[1]"]
        shape = [
            "model.backbone=none",
            "model.embedding_dim=4",
            "batches.classes_per_batch=3",
            "batches.samples_per_class=4",
        ]
        train(load_config(settings=[*fixed, *shape, *changes]), folder)
        return folder

    return made


@pytest.mark.slow
def test_what_is_written_and_what_it_says(run, tmp_path):
    folder, out = run("loss.proxies_per_class=3", "loss.gamma=0.2"), tmp_path / "out"
    found = report_proxies(folder, out, classes=2)
    assert found == json.loads((out / "proxies.json").read_text())
    assert {file.name for file in out.iterdir()} == {"proxies.json", *FIGURES}
    assert (found["items"], found["proxies_per_class"], found["gamma"], found["split"]) == (72, 3, 0.2, "train")
    assert [one["class_id"] for one in found["classes"]] == [10, 11, 12]
    assert all(one["agreement"]["sub_classes"] == 2 for one in found["classes"])
    assert 0 < found["means"]["purity"] <= 1
    shown = [one for one in found["classes"] if "nearest" in one]
    assert len(shown) == 2
    for one in shown:
        assert "sheet" not in one  # vectors have no picture
        assert {len(names) for names in one["nearest"].values()} == {min(8, n) for n in one["counts"] if n}
        assert all(name.startswith("row") for names in one["nearest"].values() for name in names)


def test_the_classes_shown_are_those_with_most_and_those_with_fewest_centres():
    one = study_proxies(Embeddings(torch.eye(2), torch.tensor([0, 0])), torch.eye(2)[None], torch.tensor([0])).classes[
        0
    ]
    classes = [replace(one, class_id=number, effective_distinct=n) for number, n in enumerate((2, 5, 1, 4, 3))]
    assert [[one.class_id for one in extremes(classes, wanted)] for wanted in (0, 1, 2, 3, 4, 5, 9)] == [
        [],
        [1],
        [1, 2],
        [1, 3, 2],
        [1, 3, 0, 2],
        [1, 3, 4, 0, 2],
        [1, 3, 4, 0, 2],
    ]


@pytest.mark.slow
def test_the_proxies_are_matched_with_their_classes(run, tmp_path):
    folder = run(
        "loss.proxies_per_class=2", "loss.gamma=0.3", "run.epochs=40", "optim.lr=0.01", "optim.warmup_epochs=0"
    )
    found = report_proxies(folder, tmp_path / "out")
    trained = open_trained(folder)
    items = trained.parts.train
    cosines = (
        torch.nn.functional.normalize(trained.model(items.inputs), dim=1)
        @ torch.nn.functional.normalize(trained.loss.proxies.flatten(0, 1), dim=1).T
    )
    own = cosines.view(72, 3, 2)[torch.arange(72), items.labels - 10]
    for one in found["classes"]:
        inside = own[items.labels == one["class_id"]]
        assert one["counts"] == inside.argmax(dim=1).bincount(minlength=2).tolist()
        assert one["usage"] == pytest.approx(torch.softmax(inside / 0.3, dim=1).mean(dim=0).tolist(), rel=1e-4)


def test_test_items_of_classes_that_did_not_train_are_left_out(run, tmp_path):
    found = report_proxies(run(), tmp_path / "out", split="test")
    assert (found["items"], [one["class_id"] for one in found["classes"]]) == (6, [10])
    assert "6 test items of classes that did not train were left out" in found["notes"]
    assert found["classes"][0]["agreement"] is None


@pytest.mark.slow
def test_one_proxy_per_class_writes_no_nan(run, tmp_path):
    found = report_proxies(run("loss.proxies_per_class=1"), tmp_path / "out")
    assert found["means"]["spread"] is None
    assert "NaN" not in (tmp_path / "out" / "proxies.json").read_text()


@pytest.mark.slow
def test_a_baseline_with_proxies_is_studied_with_its_own_gamma(run, tmp_path):
    pytest.importorskip("pytorch_metric_learning", reason="extra: compare")
    assert report_proxies(run("loss.name=softtriple", "loss.gamma=0.3"), tmp_path / "a")["gamma"] == 0.3
    other = report_proxies(run("loss.name=subcenter-arcface"), tmp_path / "b")
    assert (other["gamma"], other["proxies_per_class"]) == (0.1, 3)


def test_bad_input(run, tmp_path):
    folder = run("loss.name=triplet")
    with pytest.raises(
        ValueError, match=r"needs a loss with proxies, got loss.name = 'triplet' .* train with multi-prox"
    ):
        report_proxies(folder, tmp_path / "out")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="the run is not finished; go on with: polyanchor train --resume"):
        report_proxies(folder, tmp_path / "out")
    with pytest.raises(ValueError, match="split must be one of 'train', 'test', got 'tset'"):
        report_proxies(folder, tmp_path / "out", split="tset")
    with pytest.raises(ValueError, match="--merged-above must be a cosine, from -1 to 1, got 95"):
        report_proxies(folder, tmp_path / "out", merged_above=95)
    assert not (tmp_path / "out").exists()

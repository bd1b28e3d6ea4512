"""The card holds the numbers of the run, in a form that the hub reads."""

import json
import re

import pytest
from huggingface_hub import ModelCard

from polyanchor.deploy.description import Description, Preprocessing, origin_of
from polyanchor.deploy.model_card import model_card
from polyanchor.runs.folder import RunFolder
from polyanchor.training.train import train
from tests.tiny_runs import config

IMAGES = Preprocessing(size=16, resize=18, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


@pytest.fixture
def described(photos, tmp_path):
    train(config(photos, "run.epochs=1"), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    origin = origin_of(folder, folder.read_config())
    results = json.loads(folder.results.read_text())
    return Description(backbone="test_resnet", embedding_dim=8, preprocessing=IMAGES, origin=origin), results


def test_the_table_is_that_of_the_run(described, tmp_path):
    description, results = described
    model_card(description, "0f3a").save(tmp_path / "README.md")
    text, means = (tmp_path / "README.md").read_text(), results["test"]["means"]
    rows = {row[0]: row[1:] for row in re.findall(r"^\| (\d+) \| (\S+) \| (\S+) \| (\S+) \|$", text, re.MULTILINE)}
    assert rows == {
        str(k): tuple(f"{means[f'{name}@{k}']:.4f}" for name in ("recall", "precision", "ndcg")) for k in (1, 2, 8)
    }
    for words in (
        f"MAP@R {means['map@r']:.4f}",
        "16 queries, each searched among 15 items",
        "Test classes: 2 (class4, class5); none of them trained.",
        "Seed 0, one run; commit",
        "shorter side becomes 18 pixels",
        "subtract [0.4, 0.5, 0.6], divide by [0.2, 0.3, 0.4]",
        "best map@r on validation classes (2 held out of the training classes)",
        "its own reading of the paper's abstract",
        "`0f3a`",
    ):
        assert words in text


def test_the_metadata_are_the_hubs(described, tmp_path):
    description, results = described
    model_card(description, "0f3a").save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.library_name, data.pipeline_tag) == ("polyanchor", "image-feature-extraction")
    assert {"embeddings", "image-retrieval", "model_hub_mixin"} <= set(data.tags)
    values = {result.metric_type: result.metric_value for result in data.eval_results}
    assert values == {name: pytest.approx(mean, abs=5e-5) for name, mean in results["test"]["means"].items()}
    assert set(data.metrics) == set(values)
    assert {result.dataset_name for result in data.eval_results} == {"folder:photos, test classes"}


def test_what_a_reader_has_to_know(described):
    description, results = described
    test = results["test"] | {"notes": ["3 images were missing"], "undefined": 4}
    test["means"] = test["means"] | {"mrr": None}
    origin = description.origin.model_copy(
        update={"results": results | {"test": test}, "test_classes": ("class0", "class5"), "train_classes": ("class0",)}
    )
    card = model_card(description.model_copy(update={"origin": origin}), "0f")
    assert "- Note: 3 images were missing." in card.text
    assert "16 queries, 4 of them without a match to find (left out)" in card.text
    assert "Test classes: 2 (class0, class5); 1 of them trained too." in card.text
    assert "MRR undefined" in card.text
    assert "mrr" not in card.data.metrics


def test_without_measures_and_without_a_run(described):
    description, _ = described
    origin = description.origin.model_copy(update={"results": None})
    card = model_card(description.model_copy(update={"origin": origin}), "0f")
    assert "The run was not measured." in card.text
    card = model_card(Description(backbone="none", embedding_dim=4), "0f", place="ann/heads")
    assert "## Measured" not in card.text
    assert 'from_pretrained("ann/heads")' in card.text


def test_thousands_of_classes_are_counted(described):
    description, _ = described
    origin = description.origin.model_copy(update={"test_classes": tuple(f"c{n}" for n in range(11_316))})
    card = model_card(description.model_copy(update={"origin": origin}), "0f")
    assert "11316 (c0, c1," in card.text and "c19 and 11296 more)" in card.text
    assert len(card.text) < 10_000

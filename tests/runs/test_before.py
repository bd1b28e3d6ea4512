"""What is said of a run beside the features before training."""

import json

import pytest
import torch

from polyanchor.cli.app import run
from polyanchor.deploy.embedder import Embedder
from polyanchor.report.data import open_run, run_facts
from polyanchor.runs.before import before_table, compared_to_before, sample_rows
from tests.tiny_runs import arguments


def results(trained, **before):
    report = {
        name: {"means": {"recall@1": 1.0, "ndcg@2": 0.5, "ndcg@10": 0.6, "map@r": value}}
        for name, value in {"test": trained, **before}.items()
    }
    return {"test": report.pop("test"), "before": report, "config": {"run": {"monitor": "map@r"}}}


@pytest.mark.parametrize(
    ("trained", "before", "verdict"),
    [
        (0.5, {"features": 0.4, "centred": 0.3}, ", better than before training: 0.4000 (features)"),
        (
            0.5,
            {"features": 0.4, "reduced": 0.5},
            ", NO BETTER than before training: 0.5000 (features less their mean, c",
        ),
        (0.5, {"features": 0.4, "centred": 0.6}, ", WORSE than before training: 0.6000 (features less their"),
        (0.5, {"features": None, "centred": 0.4}, "better than before training: 0.4000 (features less their"),
    ],
)
def test_the_best_of_the_features_is_what_a_run_has_to_beat(trained, before, verdict):
    assert compared_to_before(results(trained, **before)).startswith("map@r 0.5000 on the test classes")
    assert verdict in compared_to_before(results(trained, **before))
    names, rows = before_table(results(trained, **before))
    assert names == ["recall@1", "ndcg@10", "map@r"]
    assert [row[1][2] for row in rows] == [*before.values(), trained] and rows[-1][0] == "this run"


def test_nothing_is_said_where_nothing_was_measured():
    assert compared_to_before(results(0.5)) == "" and before_table(results(0.5))[1] == []
    assert compared_to_before(results(None, features=0.5)) == ""


def test_a_sample_is_drawn_by_its_seed_and_all_of_a_small_set():
    assert torch.equal(sample_rows(5, seed=0), torch.arange(5))
    one, same, other = (sample_rows(100, seed=seed, limit=10) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(one, one.unique()) and len(one) == 10


def test_every_place_that_shows_a_result_shows_it(photos, tmp_path, capsys):
    out = tmp_path / "run"
    assert run(["train", *arguments(photos, "run.epochs=1", "model.embedding_dim=4"), "--out", str(out)]) == 0
    said = capsys.readouterr()
    results = json.loads((out / "results.json").read_text())
    sentence = compared_to_before(results)
    value = f"{results['before']['reduced']['means']['map@r']:.4f}"
    assert sentence in " ".join(said.out.split()) and "features less their mean, cut by PCA" in said.out
    assert "before    map@r on the validation classes: features " in said.err
    card = str(Embedder.from_run(out).generate_model_card())
    assert sentence in card and f"| features less their mean, cut by PCA | 1.0000 | 1.0000 | {value} |" in card
    assert run_facts(open_run(out))["Before training"] == sentence
    assert "Before training" not in run_facts(open_run(out, split="validation"))

"""What a page is made of is what the run measured."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from polyanchor.report.data import open_run, read_results
from polyanchor.runs.folder import RunFolder


def test_measured_again_it_is_what_the_run_wrote_down(run, opened):
    said = json.loads((run / "results.json").read_text())["test"]["means"]
    assert opened.report.means == pytest.approx(said, abs=1e-6)
    assert torch.equal(opened.ndcg, opened.report.per_query["ndcg@8"])
    assert opened.notes == ()


def test_neighbours_by_brute_force(opened):
    unit = torch.nn.functional.normalize(opened.queries.embeddings.vectors.double(), dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(-2)
    assert opened.neighbours.ids.shape == (16, 8)
    assert torch.allclose(opened.neighbours.scores.double(), cosines.topk(8).values, atol=1e-5)
    assert torch.allclose(cosines.gather(1, opened.neighbours.ids), cosines.topk(8).values, atol=1e-5)


def test_other_parts_are_said_to_be_such(run):
    found = open_run(run, split="validation", training=False)
    assert found.training is None
    assert found.notes == ("the queries are the validation classes, not the test classes",)
    with pytest.raises(ValueError, match=r"did you mean 'test'\?"):
        open_run(run, split="tset")


def test_numbers_that_are_not_found_again_are_noted(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    before = RunFolder(copy).read_per_query()
    save_file(before | {"recall@1": 1 - before["recall@1"]}, copy / "per_query.safetensors")
    assert "the run's own recall@1 differs by" in open_run(copy, training=False).notes[0]
    save_file({name: values[:9].contiguous() for name, values in before.items()}, copy / "per_query.safetensors")
    assert "the run measured 9 queries and this page 16" in open_run(copy, training=False).notes[0]
    (copy / "per_query.safetensors").unlink()  # a run of a former version
    assert open_run(copy, training=False).notes == ()


def test_what_is_no_finished_run(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a run: it has no config\.toml"):
        read_results(tmp_path)
    shutil.copy(run / "config.toml", tmp_path)
    with pytest.raises(FileNotFoundError, match="the run is not finished; go on with: polyanchor train --resume"):
        read_results(tmp_path)
    for content in "{", "[]", '{"test": {"means": [], "notes": []}}', '{"test": 3}':
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(ValueError, match=r"^.*results\.json"):
            read_results(tmp_path)

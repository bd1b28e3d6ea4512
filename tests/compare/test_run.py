"""A whole comparison on small vectors: budgets, seeds, going on after a kill, what is refused."""

import json
import os
import shutil
import signal

import pytest

pytest.importorskip("optuna", reason="extra: compare")
pytest.importorskip("pytorch_metric_learning", reason="extra: compare")
from polyanchor._check import NotFiniteError
from polyanchor.compare import plan as tuning
from polyanchor.compare import run as comparison
from polyanchor.compare.plan import ComparisonFolder, Plan, parse_methods
from polyanchor.compare.run import compare
from polyanchor.runs.folder import held
from polyanchor.training.stopping import Interrupted, StopRequest
from polyanchor.training.train import train
from tests.compare import features


def plan(path, *methods, seeds=2, trials=2, changes=()):
    methods = parse_methods(methods or ("class", "triplet"))
    return Plan(features.config(path, *changes), methods, seeds, trials, methods[0].label)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    path = features.write(folder / "v.safetensors")
    return path, folder / "out", compare(plan(path), folder / "out")


def test_every_run_is_a_folder_and_every_method_has_its_trials(finished):
    _, out, verdict = finished
    assert [line.runs for line in verdict.lines] == [2, 2]
    for label in ("class", "triplet"):
        for seed in (0, 1):
            results = json.loads((out / "runs" / label / f"seed-{seed}" / "results.json").read_text())
            best = json.loads((out / "tuning" / label / "best.json").read_text())
            assert results["config"]["run"]["seed"] == seed
            for key, value in best["params"].items():
                section, _, name = key.partition(".")
                assert results["config"][section][name] == value
        assert best["trials"] == 2
        assert not (out / "tuning" / label / "trial").exists()


@pytest.mark.slow
def test_a_run_is_what_train_makes_of_the_same_configuration(finished, tmp_path):
    _, out, _ = finished
    run = ComparisonFolder(out).run("class", 1)
    report = train(run.read_config(), tmp_path / "again")
    assert report.means == json.loads(run.results.read_text())["test"]["means"]


def test_methods_share_held_out_classes_and_batches(finished):
    _, out, _ = finished
    split = [json.loads((out / "runs" / label / "seed-1" / "split.json").read_text()) for label in ("class", "triplet")]
    assert split[0] == split[1]
    other = json.loads((out / "runs" / "class" / "seed-0" / "split.json").read_text())
    assert other["validation_classes"] != split[0]["validation_classes"]


@pytest.mark.slow
def test_killed_at_any_place_it_ends_in_the_same_table(finished, tmp_path):
    path, out, verdict = finished
    half = tmp_path / "half"
    shutil.copytree(out, half)
    shutil.rmtree(half / "runs" / "triplet" / "seed-1")
    (half / "runs" / "class" / "seed-1" / "results.json").unlink()  # killed at the end of a run
    shutil.rmtree(half / "tuning" / "triplet")  # and before a search
    again = compare(plan(path), half)
    for before, after in zip(verdict.lines, again.lines, strict=True):
        assert (before.label, before.means, before.tests, before.chosen) == (
            after.label,
            after.means,
            after.tests,
            after.chosen,
        )


@pytest.mark.slow
def test_a_finished_comparison_computes_nothing_again_and_takes_more_seeds(finished, tmp_path, monkeypatch):
    path, out, _ = finished
    more = tmp_path / "more"
    shutil.copytree(out, more)
    trained = []
    monkeypatch.setattr(
        comparison, "train", lambda config, *args, **kw: (trained.append(config), train(config, *args, **kw))[1]
    )
    monkeypatch.setattr(tuning, "fit", lambda *args, **kw: pytest.fail("a finished search went on"))
    compare(plan(path), more)
    assert trained == []
    verdict = compare(plan(path, seeds=3), more)
    assert [config.run.seed for config in trained] == [2, 2] and verdict.lines[0].runs == 3


@pytest.mark.slow
def test_trials_do_not_look_at_test_classes(finished, monkeypatch, tmp_path):
    path, _, _ = finished
    monkeypatch.setattr(comparison, "train", lambda *args, **kw: pytest.fail("only the search was to run"))
    seen = []
    fit = tuning.fit
    monkeypatch.setattr(
        tuning, "fit", lambda config, *args, **kw: (seen.append(config.run.seed), fit(config, *args, **kw))[1]
    )
    of = plan(path)
    tuning.tune(of.methods[0], of.base, tmp_path, trials=3, announce=lambda line: None, stop=StopRequest())
    assert seen == [tuning.SEED] * 3


@pytest.mark.slow
def test_the_search_goes_on_where_it_stood(finished, tmp_path):
    path, _, _ = finished
    of = plan(path)

    def search(folder, trials, stop=None):
        lines = []
        found = tuning.tune(
            of.methods[0], of.base, folder, trials=trials, announce=lines.append, stop=stop or StopRequest()
        )
        return found, lines

    whole, said = search(tmp_path / "whole", 4)
    search(tmp_path / "parts", 2)
    parts, rest = search(tmp_path / "parts", 4)
    assert parts == whole and rest == said[2:]


@pytest.mark.slow
def test_a_trial_that_is_not_finite_counts(finished, tmp_path, monkeypatch):
    path, _, _ = finished
    of, fit, calls = plan(path), tuning.fit, []

    def second_fails(*args, **kw):
        calls.append(1)
        if len(calls) == 2:
            raise NotFiniteError("embeddings must be finite, got NaN or infinity")
        return fit(*args, **kw)

    monkeypatch.setattr(tuning, "fit", second_fails)
    lines = []
    tuning.tune(of.methods[0], of.base, tmp_path, trials=3, announce=lines.append, stop=StopRequest())
    assert len(calls) == 3 and lines[1].endswith("not finite")


@pytest.mark.slow
def test_a_run_that_is_not_finite_is_counted_and_the_others_go_on(finished, tmp_path, monkeypatch):
    path, _, _ = finished

    def fails(config, *args, **kw):
        if config.loss.name == "triplet" and config.run.seed == 1:
            raise NotFiniteError("embeddings must be finite, got NaN or infinity")
        return train(config, *args, **kw)

    monkeypatch.setattr(comparison, "train", fails)
    verdict = compare(plan(path, trials=0), tmp_path / "out")
    line = next(line for line in verdict.lines if line.label == "triplet")
    assert (line.runs, line.failed) == (1, 1)


@pytest.mark.parametrize("trials", [0, 2])
def test_any_other_error_is_no_trial_and_no_failed_run(finished, tmp_path, monkeypatch, trials):
    path, _, _ = finished

    def broken(*args, **kw):
        raise ValueError("weights must be finite in number")  # the word alone decides nothing

    monkeypatch.setattr(comparison, "train", broken)
    monkeypatch.setattr(tuning, "fit", broken)
    with pytest.raises(ValueError, match="finite in number"):
        compare(plan(path, trials=trials), tmp_path / "out")


@pytest.mark.slow
def test_a_comparison_in_which_another_process_works_is_refused(finished, tmp_path):
    path, _, _ = finished
    (tmp_path / "out").mkdir()
    with held(tmp_path / "out"), pytest.raises(ValueError, match=f"in use by process {os.getpid()} on "):
        compare(plan(path, trials=0), tmp_path / "out")
    assert compare(plan(path, trials=0), tmp_path / "out").lines  # what the lock leaves makes it no other folder


@pytest.mark.slow
def test_a_stop_is_heard_between_runs(finished, tmp_path):
    path, _, _ = finished
    stop = StopRequest()
    heard = []

    def announce(line):
        heard.append(line)
        stop.made = True

    with pytest.raises(Interrupted):
        compare(plan(path, trials=0), tmp_path / "out", announce=announce, stop=stop)
    assert len(heard) == 1


@pytest.mark.slow
def test_ctrl_c_between_trainings_is_a_request_too(finished, tmp_path):
    path, _, _ = finished
    heard = []
    before = signal.getsignal(signal.SIGINT)  # in a shell that ignores it: that

    def announce(line):
        heard.append(line)
        if len(heard) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        compare(plan(path, trials=0), tmp_path / "out", announce=announce)
    assert heard[1].startswith("stopping after the step under way") and len(heard) == 2
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trials": 3}, "another number of trials: 2 before, 3 now"),
        ({"changes": ("optim.lr=1e-2",)}, r"another common configuration: optim.lr = 0.0003 before, 0.01 now"),
        ({"methods": ("class", "triplet:triplet,loss.margin=0.3")}, "a method 'triplet' with other settings"),
        ({"changes": ("data.val_share=0",)}, "data.val_share"),
    ],
)
def test_another_plan_is_refused(finished, change, words):
    path, out, _ = finished
    change = dict(change)
    with pytest.raises(ValueError, match=words):
        compare(plan(path, *change.pop("methods", ()), **change), out)


def test_what_would_mislead_is_refused_before_anything_is_written(finished, tmp_path):
    path, _, _ = finished
    with pytest.raises(ValueError, match="triplet compares items of a class within a batch"):
        compare(plan(path, changes=("batches.sampler=shuffled",)), tmp_path / "out")
    with pytest.raises(ValueError, match="to test against, must be one of class, triplet, got 'x'"):
        compare(Plan(features.config(path), plan(path).methods, 1, 0, "x"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").write_text("x")
    with pytest.raises(FileExistsError, match="no comparison"):
        compare(plan(path), tmp_path / "other")

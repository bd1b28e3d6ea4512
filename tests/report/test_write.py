"""A whole page of every kind of run."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from polyanchor.config.loading import load_config
from polyanchor.report.data import open_run, seen
from polyanchor.report.write import chosen_classes, write_report
from polyanchor.training.train import train
from tests.tiny_runs import config, with_gallery


def test_what_it_says(written, run):
    page = written.path.read_text(encoding="utf-8")
    said = json.loads((run / "results.json").read_text())["test"]["means"]
    assert written.size == written.path.stat().st_size < 5e6
    assert (written.queries, written.points, written.thumbnail) == (16, 36, 112)
    assert {name: one["mean"] for name, one in written.measures.items()} == pytest.approx(said, abs=1e-6)
    for value in said.values():
        assert f"<td>{value:.4f}</td>" in page
    assert "unseen: none of the 2 classes trained" in page
    assert "polyanchor&#39;s own reading of the paper&#39;s abstract" in page
    assert "proxies_per_class = 2" in page  # the configuration
    assert json.loads((run / "results.json").read_text())["environment"]["torch"] in page
    assert page.count('<li class="right"') + page.count('<li class="wrong"') == 2 * 3 * 8
    assert not list(run.glob("*.writing"))


def test_notes_of_the_results_are_at_the_top(run, tmp_path):
    file = run / "results.json"
    before = file.read_text()
    results = json.loads(before)
    results["test"]["notes"] = ["only half of <it>"]
    file.write_text(json.dumps(results))
    try:
        write_report(run, tmp_path / "r.html", tsne=False, queries=0, centres=0)
    finally:
        file.write_text(before)
    page = (tmp_path / "r.html").read_text()
    assert page.index("only half of &lt;it&gt;") < page.index('<main id="main"')
    assert "Not asked for (--centres 0)" in page


def test_thumbnails_take_what_the_rest_leaves(run, tmp_path, monkeypatch):
    def written(largest):
        monkeypatch.setattr("polyanchor.report.write.LARGEST", largest)
        found = write_report(run, tmp_path / "r.html", tsne=False, queries=0, centres=1)
        return found.thumbnail, found.size

    (full, most), (smallest, least) = written(14_500_000), written(0)
    assert (full, smallest) == (112, 16)
    between = (most + least) // 2
    side, size = written(between)
    assert smallest < side < full and size <= between + 100  # the tags around them


def test_a_failing_page_leaves_the_one_before(run, tmp_path, monkeypatch):
    (tmp_path / "r.html").write_text("before")
    monkeypatch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError("broken disk")))
    with pytest.raises(OSError, match="broken disk"):
        write_report(run, tmp_path / "r.html", tsne=False, queries=0, centres=0)
    assert (tmp_path / "r.html").read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]


def test_classes_by_name_and_by_number(opened):
    trained = int(opened.trained.classes[0])
    assert chosen_classes(opened, ["e & f", str(trained), "e & f"]) == [4, trained]
    with pytest.raises(ValueError, match=r"--class must be a class .* got 'e & g'; did you mean 'e & f'\?"):
        chosen_classes(opened, ["e & g"])
    with pytest.raises(ValueError, match="the first of 4 are .*'e & f'"):
        chosen_classes(opened, ["wholly other"])


def test_seen_and_unseen(opened, run):
    assert seen(opened).startswith("unseen")
    assert seen(open_run(run, split="train")).startswith("seen: all 2 classes")
    assert "flattering" in seen(open_run(run, split="validation", training=False))


def vectors(tmp_path, *changes, classes=8):
    torch.manual_seed(0)
    labels = torch.arange(10 * classes) % classes
    save_file(
        {"vectors": torch.eye(12)[labels] + 0.3 * torch.randn(len(labels), 12), "labels": labels},
        tmp_path / "f.safetensors",
    )
    fixed = [f"data.source=features:{tmp_path / 'f.safetensors'}", "model.backbone=none", "model.embedding_dim=4"]
    small = [
        "run.epochs=1",
        "batches.classes_per_batch=2",
        "batches.samples_per_class=3",
        'run.loggers=["csv"]',
        "data.val_share=0",
    ]
    train(load_config(settings=[*fixed, *small, *changes]), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["loss.proxies_per_class=1"], "has one proxy, and so one local centre"),
        (["loss.proxies_per_class=10"], "has 10 proxies"),
        (["loss.name=triplet"], "The loss of this run, triplet, has no proxies"),
        (["loss.name=softtriple"], "is that of pytorch-metric-learning"),
        (["loss.name=proxy-nca"], "has one proxy, and so one local centre"),
    ],
)
def test_vectors_and_losses_of_every_kind(tmp_path, settings, words):
    if any("name" in one for one in settings):
        pytest.importorskip("pytorch_metric_learning", reason="extra: compare")
    found = write_report(vectors(tmp_path, *settings), tmp_path / "r.html", queries=2, tsne=False)
    page = (tmp_path / "r.html").read_text()
    assert words in page and "<img" not in page and found.thumbnail == 0
    assert ('class="shape proxy"' in page) == ("triplet" not in settings[0] or "softtriple" in settings[0])


def test_whatever_cut_offs_the_run_has(tmp_path):
    found = write_report(vectors(tmp_path, "run.k=[3]"), tmp_path / "r.html", split="train", queries=1, tsne=False)
    assert "ndcg@3" in found.measures and "recall@1" not in found.measures
    assert "seen: all 4 classes of the queries trained" in (tmp_path / "r.html").read_text()


def test_queries_without_a_match_are_counted(tmp_path):
    save_file(
        {"vectors": torch.randn(13, 4), "labels": torch.tensor([0] * 4 + [1] * 4 + [2] * 2 + [3] * 2 + [4])},
        tmp_path / "f.safetensors",
    )
    settings = [
        f"data.source=features:{tmp_path / 'f.safetensors'}",
        "model.backbone=none",
        "run.epochs=1",
        "run.k=[1]",
    ]
    small = ["model.embedding_dim=4", "batches.classes_per_batch=2", "batches.samples_per_class=2", "data.val_share=0"]
    train(load_config(settings=[*settings, *small]), tmp_path / "run")
    write_report(tmp_path / "run", tmp_path / "r.html", queries=9, tsne=False)
    page = (tmp_path / "r.html").read_text()
    assert "1 queries have nothing of their class to find" in page
    assert '<th scope="col">undefined</th>' in page and "+ 1 undefined" in page
    assert page.count('<figure class="query">') == 8  # four worst, four typical: the fifth has no value


@pytest.mark.slow
def test_a_gallery_of_its_own(photos, tmp_path):
    with_gallery(photos)
    train(config(photos, "run.epochs=1", "data.train_share=0.5"), tmp_path / "run")
    found = write_report(tmp_path / "run", tmp_path / "r.html", queries=2, tsne=False)
    page = (tmp_path / "r.html").read_text()
    assert "each searched among 8 gallery items" in page and "gallery items <span" in page
    assert found.queries == 8 and "itself left out" not in page
    assert found.points == 8 + 8 + 16 + 4


def test_an_image_that_cannot_be_read(run, tmp_path):
    file = next((run.parent / "photos" / "e & f").iterdir())
    before = file.read_bytes()
    file.write_bytes(b"no image")
    try:
        with pytest.raises(ValueError, match="cannot be read"):
            write_report(run, tmp_path / "r.html", tsne=False)
        write_report(run, tmp_path / "r.html", tsne=False, settings=("data.on_bad_image=skip",))
    finally:
        file.write_bytes(before)
    page = (tmp_path / "r.html").read_text()
    assert "1 image could not be read and was left out" in page
    assert "the run measured 16 queries and this page 15: the data has changed" in page

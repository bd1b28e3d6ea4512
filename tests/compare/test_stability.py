"""Stability against fabricated runs with known noise, and against the measures taken again by hand."""

import pytest
import torch

from polyanchor._io import save_tensors
from polyanchor.compare.plan import ComparisonFolder, Plan, parse_methods
from polyanchor.compare.run import compare
from polyanchor.compare.stability import draw, related_gains, stability
from polyanchor.config.schema import Config
from polyanchor.metrics.retrieval import evaluate_retrieval
from polyanchor.runs.folder import write_json
from polyanchor.runs.load import embed_run
from polyanchor.stats.agreement import discrimination, mean_rank_agreement
from tests.compare import features


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stability")
    methods = parse_methods(["class", "triplet", "supcon"])
    base = features.config(features.write(folder / "v.safetensors"))
    compare(Plan(base, methods, 2, 0, "class"), folder / "out")
    return ComparisonFolder(folder / "out")


@pytest.mark.slow
def test_spread_over_seeds_follows_from_the_runs(finished):
    found = stability(finished, shares=())
    assert found.methods == ("class", "triplet", "supcon") and found.seeds == 2 and found.galleries == {}
    runs = [
        [finished.run(label, seed).read_per_query()["map@r"].nanmean() for seed in (0, 1)] for label in found.methods
    ]
    values = torch.tensor(runs)
    assert found.means["map@r"] == pytest.approx(float(values.mean()))
    spread = found.over_seeds["map@r"]
    assert spread.deviation == pytest.approx(float(values.var(dim=1).mean().sqrt()))
    assert spread.relative == pytest.approx(spread.deviation / found.means["map@r"])
    assert (spread.discrimination, spread.agreement) == (discrimination(values), mean_rank_agreement(values))


def fabricate(folder, noise_of_class):
    """Three methods, 40 classes of 5 queries; noise of a whole class is shared by all methods' differences."""
    methods = parse_methods(["class", "data", "mixed"])
    folder.begin(Plan(Config(), methods, 2, 0, "class"))
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40).repeat_interleave(5)
    for place, method in enumerate(methods):
        for seed in range(2):
            run = folder.run(method.label, seed)
            run.path.mkdir(parents=True)
            single = 0.2 * torch.randn(200, generator=generator, dtype=torch.float64)
            shared = noise_of_class * torch.randn(40, generator=generator, dtype=torch.float64)[labels]
            save_tensors({"map@r": 0.5 + 0.1 * place + single + shared, "labels": labels}, run.per_query)
            write_json(run.results, {})


def test_halves_of_classes_show_what_halves_of_queries_hide(tmp_path):
    plain, classed = ComparisonFolder(tmp_path / "plain"), ComparisonFolder(tmp_path / "classed")
    fabricate(plain, 0.0)
    fabricate(classed, 0.4)
    ratio = {}
    for folder in (plain, classed):
        found = stability(folder, shares=())
        ratio[folder] = found.over_classes["map@r"].deviation / found.over_queries["map@r"].deviation
    assert ratio[plain] == pytest.approx(1, abs=0.35)
    assert ratio[classed] > 1.5
    queries = stability(plain, shares=()).over_queries["map@r"]
    # half of 200 queries without replacement, noise 0.2 / sqrt(2 seeds): 0.2 / sqrt(2) / sqrt(200)
    assert queries.deviation == pytest.approx(0.01, rel=0.35)


@pytest.mark.slow
def test_parts_of_the_gallery_are_measured_like_any_embeddings(finished, tmp_path):
    found = stability(finished, shares=(0.8,), draws=3)
    items = [embed_run(finished.run(label, 0).path, tmp_path / f"{label}.safetensors") for label in found.methods]

    def mean(rows):
        reports = [evaluate_retrieval(one.vectors[rows], one.labels[rows], k=(1, 2)) for one in items]
        return sum(report.means["map@r"] for report in reports) / 3

    size = len(items[0].labels)
    assert found.galleries["1"]["map@r"].mean == pytest.approx(mean(torch.arange(size)))
    assert found.galleries["1"]["map@r"].agreement == pytest.approx(1.0)
    parts = [torch.randperm(size, generator=torch.Generator().manual_seed(draw)) for draw in range(3)]
    means = [mean(part[: round(0.8 * size)].sort().values) for part in parts]
    assert found.galleries["0.8"]["map@r"].mean == pytest.approx(sum(means) / 3)
    assert found.galleries["0.8"]["map@r"].deviation > 0


def test_related_classes_gain_half():
    finer, gains = related_gains(torch.tensor([3, 3, 9, 9]), torch.tensor([5, 2, 8, 8]))
    assert finer.tolist() == [1, 0, 2, 2]
    assert gains.tolist() == [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]
    with pytest.raises(ValueError, match="within one class"):
        related_gains(torch.tensor([3, 9]), torch.tensor([5, 5]))


def test_too_little_is_said(tmp_path, finished):
    folder = ComparisonFolder(tmp_path)
    folder.begin(Plan(Config(), parse_methods(["class"]), 2, 0, "class"))
    with pytest.raises(ValueError, match="2 or more methods with 2 or more seeds, all finished, got 0"):
        stability(folder)
    with pytest.raises(ValueError, match=r"between 0 and 1, got \[2\]"):
        stability(finished, shares=[2])


@pytest.mark.slow
def test_the_figure_is_drawn(finished, tmp_path):
    pytest.importorskip("matplotlib", reason="extra: report")
    found = stability(finished, shares=(0.5,), draws=2)
    files = draw(found, ["recall@1", "map@r"], tmp_path)
    assert [file.stat().st_size > 5_000 for file in files] == [True, True]
    assert "map@r" in files[0].read_text()

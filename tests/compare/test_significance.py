"""The verdict on fabricated runs: every number again from the files, by hand."""

import json

import pytest
import torch

from polyanchor._io import save_tensors
from polyanchor.compare.plan import ComparisonFolder, Plan, parse_methods
from polyanchor.compare.significance import compare_methods
from polyanchor.compare.tables import as_markdown, write
from polyanchor.config.schema import Config
from polyanchor.runs.folder import write_json
from polyanchor.stats.bootstrap import paired_bootstrap
from polyanchor.stats.intervals import holm, mean_interval, paired_t

LABELS = torch.arange(10).repeat_interleave(6)


def fabricate(tmp_path, seeds=3, labels=LABELS):
    folder = ComparisonFolder(tmp_path)
    methods = parse_methods(["proxy-anchor", "class", "data"])
    folder.begin(Plan(Config(), methods, seeds, 0, "proxy-anchor"))
    values = {}
    for place, method in enumerate(methods):
        for seed in range(seeds):
            generator = torch.Generator().manual_seed(10 * place + seed)
            queries = torch.rand(len(labels), 3, generator=generator, dtype=torch.float64) + 0.1 * place
            queries[place, 1] = torch.nan
            named = dict(zip(["recall@1", "ndcg@8", "map@r"], queries.unbind(1), strict=True))
            values[method.label, seed] = queries
            run = folder.run(method.label, seed)
            run.path.mkdir(parents=True)
            save_tensors({**named, "labels": labels}, run.per_query)
            means = {name: float(column.nanmean()) for name, column in named.items()}
            config = method.config(Config()).model_dump(mode="json")
            write_json(run.results, {"test": {"means": means, "notes": ["n"]}, "seconds": 2.0, "config": config})
    return folder, values


def test_every_number_follows_from_the_files(tmp_path):
    folder, values = fabricate(tmp_path)
    verdict = compare_methods(folder)
    assert [line.label for line in verdict.lines] == ["data", "class", "proxy-anchor"]  # by MAP@R
    of = {label: torch.stack([values[label, seed] for seed in range(3)]) for label in ("class", "data", "proxy-anchor")}
    means = {label: of[label].nanmean(dim=1)[:, 2].tolist() for label in of}
    p = holm([paired_t(means[label], means["proxy-anchor"]).p for label in ("class", "data")])
    for place, label in enumerate(("class", "data")):
        line = next(line for line in verdict.lines if line.label == label)
        assert line.means["map@r"] == mean_interval(means[label])
        assert line.tests["map@r"].seeds.p == pytest.approx(p[place])
        first, second = of[label].mean(dim=0), of["proxy-anchor"].mean(dim=0)
        want = paired_bootstrap(first, second, LABELS)[2]
        assert line.tests["map@r"].classes.difference == want.difference
        assert line.tests["map@r"].classes.p >= want.p  # corrected
        assert line.tests["map@r"].queries.difference.n == 60 and want.difference.n == 10
        # a query that is undefined for one of the two is left out of their difference
        assert line.tests["ndcg@8"].queries.difference.n == 58
    assert next(line for line in verdict.lines if line.label == "proxy-anchor").tests == {}


def test_only_common_seeds_are_paired(tmp_path):
    folder, values = fabricate(tmp_path)
    folder.run("class", 0).results.unlink()
    folder.run("proxy-anchor", 2).results.unlink()
    line = next(line for line in compare_methods(folder).lines if line.label == "class")
    difference = float((values["class", 1] - values["proxy-anchor", 1])[:, 2].mean())
    assert line.runs == 2 and line.tests["map@r"].seeds.difference.mean == pytest.approx(difference)
    assert line.tests["map@r"].seeds.difference.n == 1


def test_the_table_is_written_twice(tmp_path):
    folder, _ = fabricate(tmp_path, seeds=1)
    verdict = compare_methods(folder)
    write(verdict, tmp_path)
    said = json.loads((tmp_path / "table.json").read_text())
    assert said["lines"][0]["means"]["map@r"]["low"] is None  # one seed: no interval, and JSON has no NaN
    assert said["environment"]["torch"]
    page = (tmp_path / "table.md").read_text()
    assert page == as_markdown(verdict) and page.count("\n") == 5
    assert "| proxy-anchor | 1 |" in page and "nan" not in page


def test_the_features_before_training_are_a_row_of_the_table_with_the_mean_over_all_runs(tmp_path):
    folder, _ = fabricate(tmp_path, seeds=2)
    assert compare_methods(folder).before == {}
    for number, (label, seed) in enumerate((label, seed) for label in ("proxy-anchor", "class") for seed in (0, 1)):
        run = folder.run(label, seed)
        before = {"centred": {"means": {"recall@1": 0.5, "ndcg@8": None, "map@r": 0.1 * number}, "notes": []}}
        write_json(run.results, run.read_results() | {"before": before})
    result = compare_methods(folder)
    assert result.before["centred"]["map@r"] == pytest.approx(0.15)
    assert not any("before training" in note for note in result.notes)
    run = folder.run("data", 0)
    better = {"features": {"means": {"map@r": 0.99, "recall@1": 0.1, "ndcg@8": 0.1}, "notes": []}}
    write_json(run.results, run.read_results() | {"before": better})
    for label, seed in (("proxy-anchor", 0), ("proxy-anchor", 1), ("class", 0), ("class", 1)):
        other = folder.run(label, seed)
        write_json(other.results, other.read_results() | {"before": better})
    assert "no method is better than before training: map@r 0.9900 (features)" in compare_methods(folder).notes
    row = as_markdown(result).splitlines()[-1]
    assert row == "| before training: features less their mean |  | 0.500 | - | 0.150 |  |  |  |  |  |"


def test_other_queries_are_refused(tmp_path):
    folder, _ = fabricate(tmp_path)
    path = folder.run("class", 1).per_query
    save_tensors({**folder.run("class", 1).read_per_query(), "labels": LABELS + 1}, path)
    with pytest.raises(ValueError, match="not measured on the same queries"):
        compare_methods(folder)


def test_nothing_finished_is_said(tmp_path):
    folder = ComparisonFolder(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a comparison"):
        compare_methods(folder)
    folder.begin(Plan(Config(), parse_methods(["class"]), 1, 0, "class"))
    with pytest.raises(ValueError, match="no run in .* is finished yet"):
        compare_methods(folder)


@pytest.mark.parametrize(("seeds", "warned"), [(1, False), (2, True), (5, False)])
def test_few_seeds_are_said(tmp_path, seeds, warned):
    notes = compare_methods(fabricate(tmp_path, seeds=seeds)[0]).notes
    assert any(f"of {seeds} seeds" in note for note in notes) == warned


def test_the_turn_of_the_proxies_epoch_by_epoch(tmp_path):
    folder, _ = fabricate(tmp_path, seeds=2)
    for seed, turns in enumerate([(8.0, 2.0), (4.0, 1.0)]):
        run = folder.run("class", seed)
        rows = [{"proxy_turn": turn, "proxy_length": 1.0 + seed} for turn in turns]
        write_json(run.results, json.loads(run.results.read_text()) | {"epochs": rows})
    line = next(line for line in compare_methods(folder).lines if line.label == "class")
    assert line.proxies == {"turn": [6.0, 1.5], "length": [1.5, 1.5]}


def test_a_p_at_its_resolution_is_printed_as_a_bound_and_kept_with_it(tmp_path):
    folder, _ = fabricate(tmp_path)
    for seed in range(3):  # far above the reference in every query
        run = folder.run("data", seed)
        named = {name: tensor + 5 for name, tensor in run.read_per_query().items() if name != "labels"}
        save_tensors({**named, "labels": LABELS}, run.per_query)
    verdict = compare_methods(folder)
    write(verdict, tmp_path)
    said = json.loads((tmp_path / "table.json").read_text())
    test = next(line for line in said["lines"] if line["label"] == "data")["tests"]["map@r"]
    assert test["queries"]["p"] == test["queries"]["resolution"] == pytest.approx(2 * 2 / 100_001)  # two methods
    assert test["seeds"]["resolution"] == 0
    (row,) = [row for row in (tmp_path / "table.md").read_text().splitlines() if row.startswith("| data ")]
    assert row.split(" | ")[-2] == "<= 0.000040"

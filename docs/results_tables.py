"""Writes the tables of docs/results.md and results/*/README.md from the result files: python docs/results_tables.py."""

import json
import re
from pathlib import Path

from polyanchor.compare.tables import shown_p
from polyanchor.stats.intervals import Paired
from polyanchor.types import Interval

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "results.md", *sorted((ROOT / "results").glob("*/README.md"))
COLUMNS = {"recall@1": "R@1", "recall@2": "R@2", "recall@4": "R@4", "recall@8": "R@8", "ndcg@8": "nDCG@8"}
LENGTH = re.compile(r"(\w+)-k(\d+)-(\w+)-x(\d+)(?:-decay(.+))?")  # label of a row of the length study
REPEATS = {"deviation": ".4f", "discrimination": ".1f", "agreement": ".2f"}
REACH = ("all_own_class", "all_other_classes")
COLUMNS |= {"map@r": "MAP@R", "r_precision": "R-precision", "mrr": "MRR"}
# the table of docs/results.md: a column is a result file and a measure, a row the label of one loss in each file
OVERVIEW = {
    "Cars 64 px, R@1": ("cars196_half_64px", "recall@1"),
    "Cars 64 px, MAP@R": ("cars196_half_64px", "map@r"),
    "Cars features, MAP@R": ("cars196_half_features", "map@r"),
    "CIFAR-100 coarse, MAP@R": ("cifar100_coarse", "map@r"),
    "CIFAR-100 fine, MAP@R": ("cifar100_coarse", "sub/map@r"),
    "digits, MAP@R": ("digits", "map@r"),
}
LOSSES = {
    'Proxy Anchor = `"class"`, K 1': ("class-k1",),
    '`"class"`, K 10': ("class-k10", "class"),
    '`"data"`, K 10': ("data-k10", "data"),
    '`"mixed"`, K 10': ("mixed-k10", "mixed"),
    "SoftTriple, K 10": ("softtriple-k10", "softtriple"),
    "NormSoftmax": ("normsoftmax",),
}


def describe(results: dict) -> tuple[str, str]:
    """Loss and K of a run."""
    if "epoch" not in results:
        return "none: frozen features", ""
    loss = results["config"]["loss"]
    name = "SoftTriple" if loss["name"] == "softtriple" else f'`anchor="{loss["anchor"]}"`'
    return name, str(loss["proxies_per_class"])


def of_folder(name: str) -> str:
    """One row a file, in the order of recall@1."""
    folder, rows = ROOT / "results" / name, []
    for file in folder.glob("*.json"):
        results = json.loads(file.read_text(encoding="utf-8"))
        means, (name, centres) = results["test"]["means"], describe(results)
        minutes = f"{results['seconds'] / 60:.1f}" if "seconds" in results else ""
        cells = [name, centres, str(results["config"]["run"]["seed"]), *(f"{means[key]:.3f}" for key in COLUMNS)]
        rows.append((means["recall@1"], [*cells, minutes, f"`{results['environment']['commit']}`"]))
    head = ["loss", "K", "seed", *COLUMNS.values(), "minutes", "commit"]
    lines = [
        head,
        ["---"] * 3 + ["---:"] * (len(head) - 4) + ["---"],
        *(cells for _, cells in sorted(rows, key=lambda r: r[0])),
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def rows_of(cells: list[list[str]]) -> str:
    """Markdown: a head, its rule (numbers to the right), the rest."""
    rule = ["---", *["---:"] * (len(cells[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (cells[0], rule, *cells[1:]))


def plus_minus(interval: dict) -> str:
    """Mean and half of the interval."""
    return f"{interval['mean']:.3f}" + (
        "" if interval["high"] is None else f" ± {interval['high'] - interval['mean']:.3f}"
    )


def p_value(kind: str, test: dict, methods: int) -> str:
    """As the program prints it; older files do not say their resolution, which is that of 10,000 resamples."""
    if test["p"] is None:
        return ""
    resolution = test.get("resolution", 0.0 if kind == "seeds" else methods * 2 / 10_001)
    return shown_p(Paired(Interval(**test["difference"]), test["p"], resolution))


def comparison(results: dict) -> str:
    """A row a method: means over seeds, difference to the reference with its three p-values."""
    monitor, reference = results["monitor"], results["reference"]
    names = ["recall@1", "ndcg@8", "map@r"]
    names += [f"sub/{name}" for name in names if f"sub/{name}" in results["lines"][0]["means"]]
    judged = next((name for name in reversed(names) if name.endswith(monitor)), monitor)
    titles = [("fine " if name.startswith("sub/") else "") + COLUMNS[name.removeprefix("sub/")] for name in names]
    held_out = [f"{COLUMNS[monitor]}, held-out classes"] if results["lines"][0]["validation"] else []
    head = [
        "method",
        "seeds",
        *held_out,
        *titles,
        f"{titles[names.index(judged)]} less {reference}",
        "p seeds",
        "p queries",
        "p classes",
    ]
    cells, methods = [head], sum(bool(line["tests"]) for line in results["lines"])
    for line in sorted(results["lines"], key=lambda line: -line["means"][judged]["mean"]):
        test = line["tests"].get(judged)
        ends = ["", "", "", ""]
        if test:
            ends = [f"{test['seeds']['difference']['mean']:+.3f}"]
            ends += [p_value(kind, test[kind], methods) for kind in ("seeds", "queries", "classes")]
        shown = [plus_minus(line["means"][name]) for name in names]
        judge = [plus_minus(line["validation"])] if held_out else []
        cells.append([line["label"], str(line["runs"]), *judge, *shown, *ends])
    return rows_of(cells) + "\n\n" + origin(results)


def overview() -> str:
    """A row a loss, a column for each data set and measure: means over seeds."""
    cells = [["loss", *OVERVIEW]]
    for title, labels in LOSSES.items():
        row = [title]
        for folder, measure in OVERVIEW.values():
            results = read(f"{folder}/comparison.json")
            lines = {line["label"]: line for line in results["lines"]}
            label = next(label for label in labels if label in lines)
            row.append(f"{lines[label]['means'][measure]['mean']:.3f}")
        cells.append(row)
    return rows_of(cells)


def read(name: str) -> dict:
    """One result file."""
    return json.loads((ROOT / "results" / name).read_text(encoding="utf-8"))


def lengths(results: dict) -> str:
    """Validation by rate, with the turn of the proxies in the first and the last epoch and their length at the end."""
    lines = {line["label"]: line for line in results["lines"]}
    parts = {label: LENGTH.fullmatch(label).groups("") for label in lines}
    rates = sorted({rate for *_, rate, _ in parts.values()}, key=int)
    rows: dict[tuple, dict[str, str]] = {}
    for label, (anchor, k, kind, rate, decay) in sorted(parts.items(), key=lambda part: (part[1][0], int(part[1][1]))):
        line = lines[label]
        turn, length = line["proxies"]["turn"], line["proxies"]["length"]
        shown = f"{line['validation']['mean']:.4f} ({turn[0]:.0f}°, {turn[-1]:.1f}°, {length[-1]:.1f})"
        rows.setdefault((anchor, k, kind + (f", decay {decay}" if decay else "")), {})[rate] = shown
    order = {name: number for number, name in enumerate(dict.fromkeys(row[:2] for row in rows))}
    cells = [["anchor, K, length", *(f"rate x {rate}" for rate in rates)]]
    for name in sorted(rows, key=lambda row: (order[row[:2]], row[2])):
        cells.append([", ".join(name), *(rows[name].get(rate, "") for rate in rates)])
    return rows_of(cells) + "\n\n" + origin(results)


def steadiness(results: dict) -> str:
    """A row a measure: deviation, discrimination and agreement for each kind of repeat."""
    deepest = max(int(name[7:]) for name in results["means"] if name.startswith("recall@"))
    measures = ["recall@1", f"recall@{deepest}", f"ndcg@{deepest}", "r_precision", "map@r", "mrr"]
    measures += [f"sub/{name}" for name in measures if f"sub/{name}" in results["means"]]
    kinds = {"seeds": "over_seeds", "queries": "over_queries", "classes": "over_classes"}
    head = ["measure", "mean"]
    head += [f"{kind}: {what}" for kind in kinds for what in ("deviation", "discrimination", "tau")]
    parts = [share for share in sorted(results["galleries"], key=float, reverse=True) if share != "1"]
    head += [f"{float(share):.0%} of the gallery: mean, tau" for share in parts]
    cells = [head]
    for name in measures:
        row = [name.replace("sub/", "fine "), f"{results['means'][name]:.3f}"]
        for key in kinds.values():
            repeats = results[key][name]
            row += [f"{repeats[part]:{form}}" for part, form in REPEATS.items()]
        row += [gallery(results, share, name) for share in parts]
        cells.append(row)
    whole_gallery = results["galleries"].get("1", {})
    for name in (key for key in whole_gallery if key.startswith("graded") and key.endswith(f"@{deepest}")):
        cells.append(
            [name, f"{whole_gallery[name]['mean']:.3f}", *[""] * 9, *(gallery(results, share, name) for share in parts)]
        )
    return rows_of(cells) + "\n\n" + origin(results)


def centres(results: dict) -> str:
    """A row a method: centres in use and their agreement with the fine classes."""
    names = {"effective_distinct": "effective centres", "ami": "AMI", "kmeans_ami": "AMI of k-means"}
    names |= {"purity": "purity", "kmeans_purity": "purity of k-means", "random_purity": "purity by chance"}
    cells = [["method", "K", *names.values()]]
    for line in sorted(results["centres"], key=lambda line: -line["means"]["ami"]["mean"]):
        cells.append([line["label"], str(line["K"]), *(plus_minus(line["means"][name]) for name in names)])
    return rows_of(cells) + "\n\n" + origin(results)


def gradients(results: dict) -> str:
    """A row a method: answers of other items' gradients, and the share of items with a usable one, means over seeds."""
    head = ["method", "pull: own class", "pull: others", "push: own class", "push: others"]
    epochs = len(results["gradients"][0]["epochs"])
    shown = sorted({0, epochs // 3, 2 * epochs // 3, epochs - 1})
    head += [f"usable, epoch {epoch + 1}" for epoch in shown] + ["usable pull, last", "usable push, last"]
    cells = [head]
    for label in dict.fromkeys(line["label"] for line in results["gradients"]):
        lines = [line for line in results["gradients"] if line["label"] == label]
        reach = [mean([line["response"][part][of] for line in lines]) for part in ("pull", "push") for of in REACH]
        usable = [mean([line["epochs"][epoch]["usable"] for line in lines]) for epoch in shown]
        usable += [mean([line["epochs"][-1][f"usable_{part}"] for line in lines]) for part in ("pull", "push")]
        cells.append([label, *(f"{value:.3f}" for value in (*reach, *usable))])
    return rows_of(cells) + "\n\n" + origin(results)


def switching(results: dict) -> str:
    """A row a loss: what is left of pull and push near home."""
    cells = [["loss", "pull left", "push left"]]
    cells += [[row["label"], *(share(row[part]) for part in ("pull", "push"))] for row in results["switching"]]
    return rows_of(cells) + "\n\nC" + machine_of(results["environment"]).removeprefix("c")


def share(value: float) -> str:
    """In percent, small ones as powers."""
    return f"{value:.1%}" if value > 1e-3 else f"{100 * value:.0e} %"


def mean(values: list[float]) -> float:
    """Of at least one."""
    return sum(values) / len(values)


def gallery(results: dict, share: str, name: str) -> str:
    """Mean and tau in a part of the gallery, where the measure was taken there."""
    measured = results["galleries"][share].get(name)
    return "" if measured is None else f"{measured['mean']:.3f}, {measured['agreement']:.2f}"


def origin(results: dict) -> str:
    """Where the numbers come from."""
    plan = results["plan"]
    return f"{len(plan['methods'])} methods, {plan['trials']} trials each, {machine_of(results['environment'])}"


def frozen(results: dict) -> str:
    """One row: what the backbone finds untrained."""
    cells = [[*COLUMNS.values()], [f"{results['test']['means'][key]:.3f}" for key in COLUMNS]]
    return (
        rows_of([["", *cells[0]], ["none: frozen features", *cells[1]]])
        + "\n\nC"
        + machine_of(results["environment"]).removeprefix("c")
    )


def machine_of(environment: dict) -> str:
    """Commit and machine."""
    return (
        f"commit `{environment['commit']}`, {environment['processor']}, {environment['machine']}, "
        f"torch {environment['torch']}."
    )


def of_file(name: str) -> str:
    """The table of one file of results."""
    results = read(name)
    if name.startswith("proxy_length/"):
        return lengths(results)
    if "switching" in results:
        return switching(results)
    if "centres" in results:
        return centres(results)
    if "gradients" in results:
        return gradients(results)
    if "test" in results:
        return frozen(results)
    return comparison(results) if "lines" in results else steadiness(results)


def fill(name: str) -> str:
    """The table that a marker names: ``overview``, a file below results/, or a folder of single runs."""
    if name == "overview":
        return overview()
    return of_file(name) if name.endswith(".json") else of_folder(name)


def render(page: str) -> str:
    """The page with the table in every ``<!-- table: NAME -->`` ... ``<!-- end -->`` written anew."""
    return re.sub(
        r"(<!-- table: (\S+) -->\n).*?(\n?<!-- end -->)",
        lambda match: f"{match[1]}{fill(match[2])}\n<!-- end -->",
        page,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")

"""Draws the figures of the pages of results from the files in results/. Run: python docs/figures/results.py."""

import json
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

from polyanchor.analysis.gradients import CosineLoss, pull_push_curve
from polyanchor.config.builders import make_loss
from polyanchor.config.schema import LOSSES, Config, MultiProxyAnchor

mpl.rcParams["svg.hashsalt"] = "polyanchor"

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
ANCHORS = ("class", "data", "mixed")
COLOURS = {"fixed": "#0072B2", "free": "#E69F00", "kaiming": "#999999"}
NAMES = {"fixed": "length held at 1", "free": "length 1 at the start", "kaiming": "published initialisation, free"}
OF_ANCHOR = {"class": "#0072B2", "data": "#E69F00", "mixed": "#009E73"}  # Okabe and Ito
OF_LOSS = OF_ANCHOR | {"class-k1": "#56B4E9", "normsoftmax": "#CC79A7", "proxy-nca": "#333333", "softtriple": "#D55E00"}
OF_LOSS |= {"arcface": "#999999"}


def lines_of(name: str) -> dict:
    """The lines of a comparison by their labels."""
    said = json.loads((ROOT / "results" / name).read_text(encoding="utf-8"))
    return {line["label"]: line for line in said["lines"]}


def proxy_length(data: str, name: str) -> None:
    """Validation over the proxies' rate; below it, how far proxies turn in the last epoch."""
    lines = lines_of(f"proxy_length/{data}.json")
    rates = sorted({int(label.partition("-x")[2]) for label in lines if "decay" not in label})
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    axes = figure.subplots(2, 6, sharex=True, sharey="row")
    for column, (anchor, k) in enumerate((anchor, k) for anchor in ANCHORS for k in (1, 10)):
        for kind, colour in COLOURS.items():
            found = [lines[f"{anchor}-k{k}-{kind}-x{rate}"] for rate in rates]
            axes[0, column].plot(
                rates, [one["validation"]["mean"] for one in found], "o-", ms=3, color=colour, label=kind
            )
            axes[1, column].plot(rates, [one["proxies"]["turn"][-1] for one in found], "o-", ms=3, color=colour)
        axes[0, column].set_title(f"{anchor}, K = {k}", fontsize=10)
        axes[1, column].set(xscale="log", yscale="log", xlabel="proxies' rate / head's")
    axes[0, 0].set_ylabel("MAP@R, held-out classes")
    axes[1, 0].set_ylabel("turn in the last epoch, degrees")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, [NAMES[label] for label in labels], loc="outside lower center", ncols=3, frameon=False)
    save(figure, axes.flat, name)


def proxy_turn() -> None:
    """How far proxies turn in each epoch, K = 10, at ten and at a hundred times the head's rate."""
    lines = lines_of("proxy_length/cars196_half_features.json")
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for axis, anchor in zip(axes, ANCHORS, strict=True):
        for kind, colour in COLOURS.items():
            for rate, style in ((10, "-"), (100, "--")):
                turn = lines[f"{anchor}-k10-{kind}-x{rate}"]["proxies"]["turn"]
                label = f"{NAMES[kind]}, rate x {rate}"
                axis.plot(range(1, len(turn) + 1), turn, style, color=colour, label=label)
        axis.set(title=f"{anchor}, K = 10", yscale="log", xlabel="epoch")
    axes[0].set_ylabel("turn of a proxy in the epoch, degrees")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    save(figure, axes, "proxy_turn.svg")


def steadiness() -> None:
    """Over seeds: how well each measure tells methods apart, and whether two seeds agree on their order."""
    shown = {"recall@1": "R@1", "recall@8": "R@8", "ndcg@8": "nDCG@8", "r_precision": "R-precision", "map@r": "MAP@R"}
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    sets = {"cifar100_coarse": "CIFAR-100", "cars196_half_features": "Cars features"}
    titles = {"agreement": "Kendall's tau of two seeds", "discrimination": "between methods / between seeds"}
    for axis, (what, title) in zip(axes, titles.items(), strict=True):
        for place, ((folder, label), colour) in enumerate(zip(sets.items(), COLOURS.values(), strict=False)):
            said = json.loads((ROOT / "results" / folder / "stability.json").read_text(encoding="utf-8"))
            values = [said["over_seeds"][name][what] for name in shown]
            rows = [row + 0.38 * (place - 0.5) for row in range(len(shown))]
            axis.barh(rows, values, 0.34, color=colour, label=label)
        axis.set(title=f"{title} (more is steadier)", xlim=(0, None))
        axis.title.set_fontsize(10)
    axes[0].set_yticks(range(len(shown)), shown.values())
    axes[0].invert_yaxis()
    axes[1].legend(frameon=False)
    save(figure, axes, "steadiness.svg")


def fine_tuned() -> None:
    """Each method's mean over seeds, and its difference to Proxy Anchor with the 95 % interval over classes."""
    folder = "cars196_half_64px"
    lines = lines_of(f"{folder}/comparison.json")
    untrained = json.loads((ROOT / "results" / folder / "frozen.json").read_text(encoding="utf-8"))["test"]["means"]
    order = sorted(lines, key=lambda label: lines[label]["means"]["map@r"]["mean"])
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for axis, (name, title) in zip(axes, {"recall@1": "R@1", "map@r": "MAP@R"}.items(), strict=False):
        axis.axvline(untrained[name], ls=":", color="#666666")
        axis.annotate(" untrained", (untrained[name], len(order) - 1), color="#666666", fontsize=8, va="center")
        for row, label in enumerate(order):
            axis.plot(
                lines[label]["means"][name]["mean"], row, "o", color=OF_LOSS.get(label.partition("-")[0], "#333333")
            )
        axis.set(title=title, yticks=range(len(order)))
        axis.set_yticklabels(order)
    for row, label in enumerate(order):
        if test := lines[label]["tests"].get("map@r"):
            found = test["classes"]["difference"]
            reach = [[found["mean"] - found["low"]], [found["high"] - found["mean"]]]
            colour = OF_LOSS.get(label.partition("-")[0], "#333333")
            axes[2].errorbar(found["mean"], row, xerr=reach, fmt="o", color=colour, capsize=3)
    axes[2].axvline(0, color="#666666", lw=1)
    axes[2].set_title("MAP@R less class-k1, 95 % over classes", fontsize=10)
    save(figure, axes, "fine_tuned.svg")


def local_centres() -> None:
    """Coarse and fine retrieval over K, for each anchor."""
    lines, slow = lines_of("cifar100_coarse/comparison.json"), lines_of("cifar100_coarse/rates.json")
    figure = Figure(figsize=(9, 3.7), layout="constrained")
    axes = figure.subplots(1, 3)
    titles = {"map@r": "MAP@R, coarse", "sub/map@r": "MAP@R, fine", "sub/ndcg@8": "nDCG@8, fine"}
    counts = (1, 2, 5, 10, 20)
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        for anchor in ANCHORS:
            found = [lines[f"{anchor}-k{k}"]["means"][name] for k in counts]
            half = [one["high"] - one["mean"] for one in found]
            axis.errorbar(
                counts, [one["mean"] for one in found], half, fmt="o-", ms=3, color=OF_ANCHOR[anchor], label=anchor
            )
        for anchor in ANCHORS:
            found = [slow[f"{anchor}-k{k}-fixed-x1"]["means"][name]["mean"] for k in (1, 5, 10)]
            axis.plot((1, 5, 10), found, "o--", ms=3, mfc="white", color=OF_ANCHOR[anchor])
        axis.set(title=title, xscale="log", xlabel="local centres per class, K")
        axis.set_xticks(counts, [str(k) for k in counts])
        axis.minorticks_off()
    handles, labels = axes[0].get_legend_handles_labels()
    names = [f"anchor {label}" for label in labels]
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, title="dashed: slow proxies")
    save(figure, axes, "local_centres.svg")


def gradients() -> None:
    """Pull and push against the similarity to the own class; items with a usable gradient over the epochs."""
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    axes = figure.subplots(1, 3)
    own = torch.linspace(-0.2, 0.98, 60, dtype=torch.float64)
    names = {anchor: MultiProxyAnchor(anchor=anchor) for anchor in ANCHORS}
    names |= {name: LOSSES[name].model_validate({"name": name}) for name in ("normsoftmax", "proxy-nca", "softtriple")}
    for place, (name, options) in enumerate(names.items()):
        style, width = ("-", 6 - 2 * place) if name in ANCHORS else ("--", 1.4)  # curves that coincide show as borders
        curve = pull_push_curve(CosineLoss(make_loss(Config(loss=options), 8)), own)
        for axis, values in zip(axes, (curve.pull, curve.push), strict=False):
            values = torch.as_tensor(values)
            axis.plot(own, values / values.max(), style, lw=width, color=OF_LOSS[name], label=name)
    for axis, title in zip(axes, ("pull / its largest value", "push / its largest value"), strict=False):
        axis.set(title=title, xlabel="similarity to the own class")
    axes[0].legend(frameon=False, fontsize=8)
    said = json.loads((ROOT / "results" / "gradients" / "digits.json").read_text(encoding="utf-8"))["gradients"]
    ends = {}
    for label, colour in OF_LOSS.items():
        runs = [[epoch["usable"] for epoch in line["epochs"]] for line in said if line["label"] == label]
        usable = torch.tensor(runs).mean(dim=0)
        axes[2].plot(range(1, len(usable) + 1), usable, "o-", ms=3, color=colour)
        ends[label] = float(usable[-1])
    height, last = 2.0, len(usable)
    for label, end in sorted(ends.items(), key=lambda part: -part[1]):
        height = min(end, height - 0.055)
        axes[2].annotate(label, (last + 0.2, height), color=OF_LOSS[label], va="center", fontsize=8)
    axes[2].set(title="items with a usable gradient (digits)", xlabel="epoch", ylim=(-0.03, 1.03), xlim=(0.7, last + 3))
    axes[2].set_xticks(range(2, last + 1, 2))
    save(figure, axes, "gradients.svg")


def save(figure: Figure, axes: object, name: str) -> None:
    """Without a date, so that the same numbers give the same file."""
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    figure.set_facecolor("white")  # black labels would vanish on a dark page
    figure.savefig(HERE / name, metadata={"Date": None})


if __name__ == "__main__":
    proxy_length("cars196_half_features", "proxy_length.svg")
    proxy_turn()
    local_centres()
    steadiness()
    gradients()
    fine_tuned()

"""Does the pull switch the push off? For every loss with proxies, at its default parameters.

Pull and push at similarity 0.9 to the own class, as shares of those at 0; eight classes, similarity 0 to the others.
See "curves" in docs/analyzing_gradients.md.

Run: python results/gradients/switching.py > results/gradients/switching.json
"""

import json

import torch

from polyanchor.analysis.gradients import CosineLoss, pull_push_curve
from polyanchor.config.builders import make_loss
from polyanchor.config.schema import LOSSES, Config, MultiProxyAnchor
from polyanchor.training.summary import environment

losses = {
    f"{anchor}-k{k}": MultiProxyAnchor(anchor=anchor, proxies_per_class=k)
    for anchor in ("class", "data", "mixed")
    for k in (1, 10)
}
for name in ("proxy-nca", "normsoftmax", "softtriple", "arcface", "subcenter-arcface"):
    losses[name] = LOSSES[name].model_validate({"name": name})
rows = []
for label, options in losses.items():
    curve = pull_push_curve(CosineLoss(make_loss(Config(loss=options), 8)), torch.tensor([0.0, 0.9]))
    rows.append({"label": label, "pull": curve.pull[1] / curve.pull[0], "push": curve.push[1] / curve.push[0]})
print(json.dumps({"switching": rows, "config": Config().model_dump(mode="json"), "environment": environment()}))

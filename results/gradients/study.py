"""Gradients of the runs of the Cars study, seed 0: whose answer to whose moves, and how many stay usable.

Run, after results/cars196_half_features/run.sh: python results/gradients/study.py > results/gradients/gradients.json
"""

import json
import sys
from pathlib import Path

from polyanchor.analysis.gradient_report import report_gradients
from polyanchor.experiments.folder import ComparisonFolder
from polyanchor.training.environment import environment

FOLDER = ComparisonFolder(Path("runs/cars196_half_features"))
LABELS = ("class-k1", "class-k10", "data-k1", "data-k10", "mixed-k1", "mixed-k10")
LABELS += ("proxy-nca", "normsoftmax", "softtriple", "arcface", "subcenter-arcface", "supcon", "triplet")
KEPT = ("loss", "strength", "pull_share", "concentration", "response")
CAPACITY = ("usable", "usable_pull", "usable_push", "pull", "push")

lines = []
for label in LABELS:
    run = FOLDER.run(label, 0).path
    out = run / "analysis" / "gradients"
    found = report_gradients(run, out, over_training=True, announce=lambda line: print(line, file=sys.stderr))
    over = found["over_training"]
    line = {"label": label} | {key: found[key] for key in KEPT}
    line["epochs"] = [{key: epoch[key] for key in CAPACITY} for epoch in over["epochs"]]
    line["same_losses_as_the_run"] = over["same_losses_as_the_run"]
    lines.append(line)
said = json.loads(FOLDER.plan.read_text(encoding="utf-8"))
print(json.dumps({"gradients": lines, "curves": found["curves"], "plan": said, "environment": environment()}))

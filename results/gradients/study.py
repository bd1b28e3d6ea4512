"""Gradients of the runs of a comparison: whose answer to whose moves, and how many stay usable, epoch by epoch.

Run: python results/gradients/study.py FOLDER SEEDS LABEL... > results/gradients/NAME.json; see run.sh.
"""

import json
import sys
from pathlib import Path

from polyanchor.analysis.gradient_report import report_gradients
from polyanchor.compare.plan import ComparisonFolder
from polyanchor.training.summary import environment

KEPT = ("loss", "strength", "pull_share", "concentration", "response")
CAPACITY = ("usable", "usable_pull", "usable_push", "pull", "push")


def say(line: str) -> None:
    """Progress, beside the output."""
    print(line, file=sys.stderr)


folder, lines = ComparisonFolder(Path(sys.argv[1])), []
for label in sys.argv[3:]:
    for seed in range(int(sys.argv[2])):
        run = folder.run(label, seed).path
        found = report_gradients(run, run / "analysis" / "gradients", over_training=True, announce=say)
        over = found["over_training"]
        line = {"label": label, "seed": seed} | {key: found[key] for key in KEPT}
        line["epochs"] = [{key: epoch[key] for key in CAPACITY} for epoch in over["epochs"]]
        line["same_losses_as_the_run"] = over["same_losses_as_the_run"]
        lines.append(line)
plan = json.loads(folder.plan.read_text(encoding="utf-8"))
print(json.dumps({"gradients": lines, "plan": plan, "environment": environment()}))

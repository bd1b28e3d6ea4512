"""Do the local centres follow the fine classes? `polyanchor analyze proxies` on the test items of every run with K > 1.

Run, after run.sh: python results/cifar100_coarse/centres.py > results/cifar100_coarse/centres.json
"""

import json
from pathlib import Path

from polyanchor.analysis.proxy_report import report_proxies
from polyanchor.compare.plan import ComparisonFolder
from polyanchor.losses.proxies import proxies_of
from polyanchor.runs.load import open_trained
from polyanchor.stats.intervals import mean_interval
from polyanchor.training.summary import environment

FOLDER = ComparisonFolder(Path("runs/cifar100_coarse"))
MEASURES = ("effective_distinct", "ami", "kmeans_ami", "purity", "kmeans_purity", "random_purity", "spread")

plan, lines = FOLDER.read(), []
for method in plan.methods:
    proxies = proxies_of(open_trained(FOLDER.run(method.label, 0).path).loss)
    if proxies is None or proxies.shape[1] < 2:
        continue
    found = []
    for seed in range(plan.seeds):
        run = FOLDER.run(method.label, seed).path
        found.append(report_proxies(run, run / "analysis" / "proxies", part="test", classes=0)["means"])
    means = {name: mean_interval([one[name] for one in found]) for name in MEASURES}
    lines.append({"label": method.label, "K": proxies.shape[1], "means": {n: vars(one) for n, one in means.items()}})
said = json.loads(FOLDER.plan.read_text(encoding="utf-8"))
print(json.dumps({"centres": lines, "plan": said, "environment": environment()}, ensure_ascii=False))

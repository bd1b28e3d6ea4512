"""The baseline: features of the pretrained backbone, nothing trained. Prints results as JSON.

Run: python results/cars196_half_lite0/frozen.py WEIGHTS CONFIG
"""

import json
import sys
from pathlib import Path

import torch

from polyanchor.config.builders import make_model, make_transforms, open_parts
from polyanchor.config.loading import load_config
from polyanchor.runs.evaluate import evaluate_items
from polyanchor.runs.folder import as_json
from polyanchor.training.summary import environment

config = load_config(Path(sys.argv[2]), [f"model.weights={sys.argv[1]}", "model.pooling=avg"])
torch.set_num_threads(config.run.threads)
parts = open_parts(config)
model = make_model(config, parts.train)
report = evaluate_items(
    model.backbone,
    parts.split.test,
    None,
    make_transforms(config, model.statistics)[1],
    k=config.run.k,
    notes=parts.split.notes,
    workers=1,
)
settings = config.model_dump(mode="json")
print(json.dumps({"test": as_json(report), "config": settings, "environment": environment()}, indent=1))

